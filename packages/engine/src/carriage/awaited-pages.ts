/**
 * The few pages that somebody waits for, each with what is known of the waiting. Every batch that arrives is
 * looked through for them, so this costs by those who wait and not by what arrives.
 */
import type { BlockIndex } from '../units.ts';

/** With more than this waiting, looking up each page that arrives is cheaper than looking for each awaited one. */
const FEW = 16;

export class AwaitedPages<T> {
  readonly #blocks = new Map<BlockIndex, Map<number, T>>();

  has(block: BlockIndex, page: number): boolean {
    return this.#blocks.get(block)?.has(page) ?? false;
  }

  /** Takes the place of what was known of the page before. */
  set(block: BlockIndex, page: number, what: T): void {
    const awaited = this.#blocks.get(block);
    if (awaited) awaited.set(page, what);
    else this.#blocks.set(block, new Map([[page, what]]));
  }

  /** These pages of the block came: returns what was known of those that were awaited, and forgets them. */
  arrived(block: BlockIndex, pages: Uint32Array): readonly T[] {
    const awaited = this.#blocks.get(block);
    if (awaited === undefined) return [];
    const found: T[] = [];
    const take = (page: number, what: T): void => {
      found.push(what);
      awaited.delete(page);
    };
    if (awaited.size <= FEW) {
      for (const [page, what] of awaited) if (pages.includes(page)) take(page, what);
    } else {
      for (const page of pages) {
        const what = awaited.get(page);
        if (what !== undefined) take(page, what);
      }
    }
    if (awaited.size === 0) this.#blocks.delete(block);
    return found;
  }

  *values(): IterableIterator<T> {
    for (const awaited of this.#blocks.values()) yield* awaited.values();
  }
}
