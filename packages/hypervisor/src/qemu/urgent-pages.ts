/**
 * The pages that a fault waits for: they leave QEMU between others and have to be told from them.
 *
 * QEMU goes on behind a page that it was asked for. The first few of what follows go along with it
 * (pre-paging): the guest is likely to want them next, and they save it a fault each.
 */
import type { PageRange, RamLayout } from '@vmferry/engine/guest';
import { type BlockIndex, PAGE_BYTES } from '@vmferry/engine/units';

/** Pages of one fault are few; what is never answered (sent before the fault) must not pile up. */
const MAX_WAITING = 65_536;
const ALONG = 31;

export class UrgentPages {
  readonly #waiting = new Set<number>();
  /** The last page that was asked for and came. */
  #answered = Number.NEGATIVE_INFINITY;
  /** Page number of each block's first page, counted through all blocks. */
  #bases: number[] = [];

  setLayout(layout: RamLayout): void {
    let base = 0;
    this.#bases = layout.blocks.map((block) => {
      const mine = base;
      base += block.bytes / PAGE_BYTES;
      return mine;
    });
  }

  add({ block, first, count }: PageRange): void {
    const base = this.#base(block) + first;
    for (let page = base; page < base + count; page += 1) this.#waiting.add(page);
    for (const oldest of this.#waiting) {
      if (this.#waiting.size <= MAX_WAITING) break;
      this.#waiting.delete(oldest);
    }
  }

  has(block: BlockIndex, page: number): boolean {
    const at = this.#base(block) + page;
    if (this.#waiting.size > 0 && this.#waiting.has(at)) {
      this.#answered = at;
      return true;
    }
    return at > this.#answered && at <= this.#answered + ALONG;
  }

  arrived(block: BlockIndex, pages: Uint32Array): void {
    const base = this.#base(block);
    for (const page of pages) this.#waiting.delete(base + page);
  }

  #base(block: BlockIndex): number {
    return this.#bases[block] ?? 0;
  }
}
