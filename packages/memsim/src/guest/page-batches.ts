/** Gathers a guest's pages in batches, in buffers that are used again. */
import { type BatchLimits, headroomFor, pacedBatch } from '@vmferry/engine/carriage/batch-limits';
import { type Lane, type PageBatch, PageKind, type SourcePlan } from '@vmferry/engine/guest';
import { type Bytes, blockIndex, bytes, PAGE_BYTES, type Round } from '@vmferry/engine/units';
import { PAGE_WORDS } from './content.ts';
import type { SimulatedMachine } from './machine.ts';

/** Of what the driver may keep, the share of buffers that nobody uses at the moment. */
const IDLE_SHARE = 1 / 4;

/** All of a simulated guest's memory is one block. */
export const RAM = blockIndex(0);

export class PageBatches {
  readonly #machine: SimulatedMachine;
  readonly #most: BatchLimits;
  #limits: BatchLimits;
  readonly #headroomBytes: Bytes;
  readonly #keep: number;
  readonly #free: Buffer[] = [];

  constructor(
    machine: SimulatedMachine,
    limits: BatchLimits,
    { bufferBytes }: Pick<SourcePlan, 'bufferBytes'>,
  ) {
    this.#machine = machine;
    this.#most = limits;
    this.#limits = pacedBatch(limits, undefined);
    this.#headroomBytes = bytes(Math.ceil(headroomFor(limits.pages) / 64) * 64);
    this.#keep = Math.max(4, Math.floor((bufferBytes * IDLE_SHARE) / (limits.rawPages * PAGE_BYTES)));
  }

  /** See `SourceGuest.setPace`. */
  setPace(contentBytesPerSec: number): void {
    this.#limits = pacedBatch(this.#most, contentBytesPerSec);
  }

  /** A batch of the pages that `next` gives, as many as it holds. Undefined when there are none. */
  gather(next: () => number | undefined, round: Round, lane: Lane): PageBatch | undefined {
    const { rawPages, pages: allPages } = this.#limits;
    const pages: number[] = [];
    const kinds: number[] = [];
    let buffer: Buffer | undefined;
    let raw = 0;
    while (raw < rawPages && pages.length < allPages) {
      const page = next();
      if (page === undefined) break;
      const zero = this.#machine.isZeroPage(page);
      pages.push(page);
      kinds.push(zero ? PageKind.zero : PageKind.raw);
      if (zero) continue;
      buffer ??=
        this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#headroomBytes + this.#most.rawPages * PAGE_BYTES);
      this.#machine.readPage(page, wordsOf(buffer, this.#headroomBytes + raw * PAGE_BYTES));
      raw += 1;
    }
    if (pages.length === 0) return undefined;
    return {
      type: 'pages',
      block: RAM,
      round,
      lane,
      pages: Uint32Array.from(pages),
      kinds: Uint8Array.from(kinds),
      content: buffer?.subarray(this.#headroomBytes, this.#headroomBytes + raw * PAGE_BYTES) ?? NOTHING,
      headroomBytes: buffer ? this.#headroomBytes : bytes(0),
      release: this.#releaser(buffer),
    };
  }

  #releaser(buffer: Buffer | undefined): () => void {
    let released = false;
    return () => {
      if (released) throw new Error('a page batch was released twice');
      released = true;
      if (buffer && this.#free.length < this.#keep) this.#free.push(buffer);
    };
  }
}

const NOTHING = new Uint8Array(0);

function wordsOf(buffer: Buffer, at: number): Uint32Array {
  return new Uint32Array(buffer.buffer, buffer.byteOffset + at, PAGE_WORDS);
}
