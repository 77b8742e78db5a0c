/** One bit a page, in words of 32. Those in shared memory are only touched by `Atomics`. */

export function setShared(bits: Uint32Array, page: number): void {
  Atomics.or(bits, page >>> 5, 1 << (page & 31));
}

export function hasShared(bits: Uint32Array, page: number): boolean {
  return ((Atomics.load(bits, page >>> 5) >>> (page & 31)) & 1) === 1;
}

/** While no other thread looks. */
export function clearRange(bits: Uint32Array, first: number, count: number): void {
  const end = first + count;
  let page = first;
  const clearUpTo = (limit: number): void => {
    for (; page < limit; page += 1) bits[page >>> 5] = bits[page >>> 5]! & ~(1 << (page & 31));
  };
  clearUpTo(Math.min(end, Math.ceil(first / 32) * 32));
  const words = Math.floor((end - page) / 32);
  bits.fill(0, page >>> 5, (page >>> 5) + words);
  page += words * 32;
  clearUpTo(end);
}

/** How many pages are in the log, which is only looked at. */
export function countShared(log: Uint32Array): number {
  let count = 0;
  for (let at = 0; at < log.length; at += 1) {
    const word = Atomics.load(log, at);
    if (word !== 0) count += countBits(word);
  }
  return count;
}

export function countBits(word: number): number {
  let n = word - ((word >>> 1) & 0x5555_5555);
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** Pages to be sent, taken in ascending order, or any of them out of turn. */
export class PagesToSend {
  readonly #words: Uint32Array;
  readonly #pages: number;
  #size = 0;
  /** No page is left before this word. */
  #from = 0;

  constructor(pages: number) {
    this.#pages = pages;
    this.#words = new Uint32Array(Math.ceil(pages / 32));
  }

  get size(): number {
    return this.#size;
  }

  get words(): Readonly<Uint32Array> {
    return this.#words;
  }

  addAll(): void {
    this.#words.fill(0xffff_ffff);
    const rest = this.#pages & 31;
    if (rest !== 0) this.#words[this.#words.length - 1] = (1 << rest) - 1;
    this.#size = this.#pages;
    this.#from = 0;
  }

  /** Adds what is in the log, and takes it out of there. */
  takeFrom(log: Uint32Array): void {
    for (let at = 0; at < log.length; at += 1) {
      if (Atomics.load(log, at) === 0) continue;
      const before = this.#words[at]!;
      const after = (before | Atomics.exchange(log, at, 0)) >>> 0;
      this.#words[at] = after;
      this.#size += countBits(after) - countBits(before);
      if (at < this.#from) this.#from = at;
    }
  }

  /** Takes the page out; false if it is not there. */
  take(page: number): boolean {
    const bit = (1 << (page & 31)) >>> 0;
    const at = page >>> 5;
    const word = this.#words[at] ?? 0;
    if (page >= this.#pages || (word & bit) === 0) return false;
    this.#words[at] = (word & ~bit) >>> 0;
    this.#size -= 1;
    return true;
  }

  /** Takes the first page out. Undefined when there is none. */
  next(): number | undefined {
    for (let at = this.#from; at < this.#words.length; at += 1) {
      const word = this.#words[at]!;
      if (word === 0) continue;
      this.#from = at;
      const lowest = (word & -word) >>> 0;
      this.#words[at] = (word & ~lowest) >>> 0;
      this.#size -= 1;
      return at * 32 + 31 - Math.clz32(lowest);
    }
    this.#from = this.#words.length;
    return undefined;
  }

  /** How many pages are in this set, in the log, or in both. The log is only looked at. */
  sizeWith(log: Uint32Array): number {
    let size = 0;
    for (let at = 0; at < log.length; at += 1) {
      const word = (this.#words[at]! | Atomics.load(log, at)) >>> 0;
      if (word !== 0) size += countBits(word);
    }
    return size;
  }
}
