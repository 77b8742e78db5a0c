/** A set of pages, one bit each: for what is known of every page of a guest. */
import type { BlockIndex, Pages } from '../units.ts';

export class PageSet {
  readonly #blocks: readonly Uint32Array[];

  /** `blockPages`: how many pages each block has. Empty at first. */
  constructor(blockPages: readonly Pages[]) {
    this.#blocks = blockPages.map((count) => new Uint32Array(Math.ceil(count / 32)));
  }

  /** False for what lies outside the blocks, too. */
  has(block: BlockIndex, page: number): boolean {
    const word = this.#blocks[block]?.[page >>> 5] ?? 0;
    return ((word >>> (page & 31)) & 1) === 1;
  }

  /** What lies outside the blocks is passed over. */
  add(block: BlockIndex, page: number): void {
    const words = this.#blocks[block];
    const at = page >>> 5;
    if (words === undefined || at >= words.length) return;
    words[at] = words[at]! | (1 << (page & 31));
  }
}
