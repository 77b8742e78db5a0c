/** The memory that page batches are gathered in: pooled for the usual size, one by one for huge pages. */
import { maxPageListBytes } from '@vmferry/engine/carriage/page-payload';
import type { SourcePlan } from '@vmferry/engine/guest';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import type { ContentBuffer } from './stream/batch-builder.ts';

export class BatchBuffers {
  readonly #pageBytes: number;
  readonly #headroom: number;
  readonly #free: Buffer[] = [];
  readonly #keep: number;

  constructor(plan: SourcePlan) {
    this.#pageBytes = plan.batchPages * PAGE_BYTES;
    this.#headroom = roundUp(maxPageListBytes(plan.batchPages));
    this.#keep = Math.max(4, Math.floor(plan.bufferBytes / this.#pageBytes));
  }

  /**
   * Answers at once and always: the bound is kept by whoever pulls items, and by the socket that is not read
   * meanwhile.
   */
  readonly allocate = (wanted: number): ContentBuffer => {
    if (wanted > this.#pageBytes) {
      const headroom = roundUp(maxPageListBytes(wanted / PAGE_BYTES));
      const buffer = Buffer.allocUnsafeSlow(headroom + wanted);
      return { content: buffer.subarray(headroom), headroomBytes: bytes(headroom), release: () => {} };
    }
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#headroom + this.#pageBytes);
    let released = false;
    return {
      content: buffer.subarray(this.#headroom),
      headroomBytes: bytes(this.#headroom),
      release: () => {
        if (released) throw new Error('a page batch was released twice');
        released = true;
        if (this.#free.length < this.#keep) this.#free.push(buffer);
      },
    };
  };

  close(): void {
    this.#free.length = 0;
  }
}

function roundUp(n: number): number {
  return Math.ceil(n / 64) * 64;
}
