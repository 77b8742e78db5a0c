/**
 * The memory that page batches are gathered in: pooled for the usual sizes, one by one for huge pages. A batch
 * that waits in post-copy must not hold on to the room of a large one.
 */
import { headroomFor } from '@vmferry/engine/carriage/batch-limits';
import type { SourcePlan } from '@vmferry/engine/guest';
import { type Bytes, bytes, PAGE_BYTES } from '@vmferry/engine/units';
import type { ContentBuffer } from './stream/batch-builder.ts';

/** Of what the driver may keep, each size's share of buffers that nobody uses at the moment. */
const IDLE_SHARE = 1 / 4;

interface Size {
  readonly contentBytes: number;
  readonly headroomBytes: Bytes;
  readonly free: Buffer[];
  readonly keep: number;
}

export class BatchBuffers {
  /** Smallest first. */
  readonly #sizes: readonly Size[];

  constructor({ batches, bufferBytes }: Pick<SourcePlan, 'batches' | 'bufferBytes'>) {
    this.#sizes = [batches.postcopy, batches.precopy]
      .map(({ rawPages, pages }) => {
        const contentBytes = rawPages * PAGE_BYTES;
        const keep = Math.max(4, Math.floor((bufferBytes * IDLE_SHARE) / contentBytes));
        return { contentBytes, headroomBytes: roundUp(headroomFor(pages)), free: [], keep };
      })
      .sort((a, b) => a.contentBytes - b.contentBytes);
  }

  /**
   * Answers at once and always: the bound is kept by whoever pulls items, and by the socket that is not read
   * meanwhile.
   */
  readonly allocate = (wanted: number): ContentBuffer => {
    const size = this.#sizes.find(({ contentBytes }) => contentBytes >= wanted);
    if (size === undefined) {
      const headroomBytes = roundUp(headroomFor(wanted / PAGE_BYTES));
      const buffer = Buffer.allocUnsafeSlow(headroomBytes + wanted);
      return { content: buffer.subarray(headroomBytes), headroomBytes, release: () => {} };
    }
    const { contentBytes, headroomBytes, free, keep } = size;
    const buffer = free.pop() ?? Buffer.allocUnsafeSlow(headroomBytes + contentBytes);
    let released = false;
    return {
      content: buffer.subarray(headroomBytes),
      headroomBytes,
      release: () => {
        if (released) throw new Error('a page batch was released twice');
        released = true;
        if (free.length < keep) free.push(buffer);
      },
    };
  };

  close(): void {
    for (const { free } of this.#sizes) free.length = 0;
  }
}

function roundUp(n: number): Bytes {
  return bytes(Math.ceil(n / 64) * 64);
}
