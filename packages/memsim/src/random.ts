/**
 * Random numbers without a state: the n-th draw is a function of its key and n, so that any of them can be
 * told again at any time and on any thread. The mixing is MurmurHash3's finalizer.
 */

/** 32 bits from up to four numbers, of which the lower 32 bits count. */
export function hash(seed: number, a: number, b = 0, c = 0): number {
  let mixed = scramble(seed ^ 0x9e37_79b9);
  mixed = scramble((mixed ^ a) + 0x7f4a_7c15);
  mixed = scramble((mixed ^ b) + 0x1656_67b1);
  return scramble((mixed ^ c) + 0x27d4_eb2f);
}

/** The n-th number of the sequence that `key` stands for, 0 up to but not 1. */
export function draw(key: number, n: number, attempt = 0): number {
  return hash(key, n, n / 0x1_0000_0000, attempt) / 0x1_0000_0000;
}

function scramble(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85eb_ca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
