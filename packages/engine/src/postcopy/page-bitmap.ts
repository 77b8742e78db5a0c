/** One bit per page of a block, searched a word at a time. */
export class PageBitmap {
  readonly pages: number;
  /** Bits that are set. */
  count = 0;
  readonly #words: Uint32Array;

  constructor(pages: number) {
    this.pages = pages;
    this.#words = new Uint32Array(Math.ceil(pages / 32));
  }

  has(page: number): boolean {
    return (this.#words[page >>> 5]! & (1 << (page & 31))) !== 0;
  }

  /** Returns whether the bit was set. */
  clear(page: number): boolean {
    const word = this.#words[page >>> 5]!;
    const bit = 1 << (page & 31);
    if ((word & bit) === 0) return false;
    this.#words[page >>> 5] = word & ~bit;
    this.count -= 1;
    return true;
  }

  /** Sets `first` to `end` (exclusive) and returns how many were not set before. */
  setRange(first: number, end: number): number {
    return this.#fill(first, end, true);
  }

  /** Clears `first` to `end` (exclusive) and returns how many were set before. */
  clearRange(first: number, end: number): number {
    return this.#fill(first, end, false);
  }

  /** The first set bit in `from` to `end` (exclusive), or -1. */
  next(from: number, end: number): number {
    return this.#find(from, end, 0);
  }

  /** The first bit that is not set in `from` to `end` (exclusive), or `end`. */
  nextClear(from: number, end: number): number {
    const found = this.#find(from, end, -1);
    return found === -1 ? end : found;
  }

  /** The last set bit in `from` down to `floor` (both inclusive), or -1. */
  previous(from: number, floor: number): number {
    let index = from >>> 5;
    const last = floor >>> 5;
    let word = this.#words[index]! & (0xffff_ffff >>> (31 - (from & 31)));
    while (word === 0) {
      index -= 1;
      if (index < last) return -1;
      word = this.#words[index]!;
    }
    const page = index * 32 + 31 - Math.clz32(word);
    return page < floor ? -1 : page;
  }

  #find(from: number, end: number, flip: 0 | -1): number {
    if (from >= end) return -1;
    let index = from >>> 5;
    const last = (end - 1) >>> 5;
    let word = (this.#words[index]! ^ flip) & (0xffff_ffff << (from & 31));
    while (word === 0) {
      index += 1;
      if (index > last) return -1;
      word = this.#words[index]! ^ flip;
    }
    const page = index * 32 + 31 - Math.clz32(word & -word);
    return page < end ? page : -1;
  }

  #fill(first: number, end: number, on: boolean): number {
    let changed = 0;
    let at = first;
    while (at < end) {
      const index = at >>> 5;
      const low = at & 31;
      const high = Math.min(32, low + end - at);
      const mask = (0xffff_ffff >>> (32 - (high - low))) << low;
      const before = this.#words[index]!;
      const after = on ? before | mask : before & ~mask;
      changed += ones(before ^ after);
      this.#words[index] = after;
      at += high - low;
    }
    this.count += on ? changed : -changed;
    return changed;
  }
}

function ones(word: number): number {
  let n = word - ((word >>> 1) & 0x5555_5555);
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
