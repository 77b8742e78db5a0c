/** Page batches as a guest hands them over, which know whether they were given back. */
import { randomFillSync } from 'node:crypto';
import { headroomFor } from '@vmferry/engine/carriage/batch-limits';
import { type PageBatch, PageKind } from '@vmferry/engine/guest';
import { blockIndex, bytes, PAGE_BYTES, round } from '@vmferry/engine/units';

export interface TestBatch extends PageBatch {
  /** How often `release` was called. */
  readonly released: () => number;
}

/** Raw pages first, then pages of zeroes, every other page of the block. */
export function batchOf(
  raw: number,
  zero: number,
  options: { first?: number; headroom?: boolean } = {},
): TestBatch {
  const { first = 0, headroom = true } = options;
  const count = raw + zero;
  const headroomBytes = headroom && raw > 0 ? headroomFor(count) : 0;
  const memory = Buffer.allocUnsafeSlow(headroomBytes + raw * PAGE_BYTES);
  randomFillSync(memory);
  let released = 0;
  return {
    type: 'pages',
    block: blockIndex(0),
    round: round(1),
    lane: 'bulk',
    pages: Uint32Array.from({ length: count }, (_, index) => first + 2 * index),
    kinds: new Uint8Array(count).fill(PageKind.zero, raw),
    content: memory.subarray(headroomBytes),
    headroomBytes: bytes(headroomBytes),
    release: () => {
      released += 1;
    },
    released: () => released,
  };
}
