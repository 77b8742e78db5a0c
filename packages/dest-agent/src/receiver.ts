/**
 * Frames become items again and reach the guest in an order that is right on any number of streams.
 *
 *     page frame ──▶ gate ──▶ unpacked on a worker ──▶ guest ──▶ consumed (acknowledged)
 *     barrier + what follows it on the control stream ──▶ gate ──▶ guest ──▶ consumed
 *
 * Nothing is acknowledged before the guest's hypervisor has taken it, so what is held here as it came is bounded
 * by the source's windows; what it becomes is bounded by the pool and by how many batches the guest gets at a
 * time.
 */
import { type Applicable, ApplyOrder } from '@vmferry/engine/carriage/apply-order';
import { BATCH_PAYLOAD_BYTES } from '@vmferry/engine/carriage/batch-limits';
import { decodePageList } from '@vmferry/engine/carriage/page-payload';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import type { DestGuest, DestItem, Lane, PageBatch, RamLayout } from '@vmferry/engine/guest';
import { blockIndex, bytes, PAGE_BYTES, round } from '@vmferry/engine/units';
import { BufferPool } from '@vmferry/native/buffer-pool';
import { unpack, verify } from '@vmferry/native/kernels';
import { Codec, type Frame, FrameFlag, verifyPayload } from '@vmferry/wire/frame';
import type { Link } from '@vmferry/wire/link';
import type { FaultTimes } from './fault-times.ts';
import { Handover } from './handover.ts';

const POOL_BUFFER_BYTES = BATCH_PAYLOAD_BYTES;
/** Bulk batches with the guest: two on their way to the hypervisor, two ready behind them. */
const BULK_AT_GUEST = 4;
/** More than are ever asked for at once by the vCPUs of most guests; a bound, as a peer might send anything. */
const EXPRESS_AT_GUEST = 16;
/** Those with the guest, and as many as there are threads to unpack the next. */
const POOL_BUFFERS = BULK_AT_GUEST + 2;
/** Hashed on the spot: a thread's wake-up would take longer. */
const HASH_INLINE_BYTES = 64 * 1024;

interface PageJob {
  readonly frame: Frame;
  readonly link: Link;
}

interface BarrierJob {
  readonly apply: () => Promise<void>;
}

type Handed = Applicable<PageJob, BarrierJob>;
type HandedPages = Extract<Handed, { type: 'pages' }>;

/** A frame's payload as it was before it was packed, checked. */
interface Unpacked {
  readonly handed: HandedPages;
  readonly payload: Uint8Array;
  readonly release: () => void;
}

interface Announced {
  readonly epoch: number;
  readonly upTo: readonly number[];
}

export interface ReceiverOptions {
  readonly guest: DestGuest;
  readonly dataStreams: number;
  readonly bufferBytes: number;
  readonly faults: FaultTimes;
  /** The first thing that went wrong; nothing is applied after it. */
  readonly onFailure: (error: unknown) => void;
}

export class Receiver {
  readonly #guest: DestGuest;
  readonly #gate: ApplyOrder<PageJob, BarrierJob>;
  readonly #express: number;
  readonly #pool: BufferPool;
  readonly #faults: FaultTimes;
  readonly #onFailure: (error: unknown) => void;
  readonly #handovers: Readonly<Record<Lane, Handover<Unpacked>>>;
  #layout: RamLayout | undefined;
  #announced: Announced | undefined;
  #failed = false;
  #pages = 0;

  constructor(options: ReceiverOptions) {
    this.#guest = options.guest;
    this.#express = options.dataStreams;
    this.#gate = new ApplyOrder({ streams: options.dataStreams + 1, express: this.#express });
    this.#pool = new BufferPool({
      bufferBytes: POOL_BUFFER_BYTES,
      maxBuffers: Math.min(POOL_BUFFERS, Math.max(2, Math.floor(options.bufferBytes / POOL_BUFFER_BYTES))),
    });
    this.#faults = options.faults;
    this.#onFailure = options.onFailure;
    const handover = (lane: Lane, most: number): Handover<Unpacked> =>
      new Handover({
        most,
        hand: (unpacked) => this.#run(unpacked.handed, this.#apply(unpacked, lane)),
        onFailure: (error) => this.#fail(error),
      });
    this.#handovers = {
      bulk: handover('bulk', BULK_AT_GUEST),
      express: handover('express', EXPRESS_AT_GUEST),
    };
  }

  /** Pages that the guest's hypervisor has taken. */
  get pagesApplied(): number {
    return this.#pages;
  }

  /** A frame of a data stream, or of the express stream (the last one). */
  pages(frame: Frame, link: Link, stream: number): void {
    this.#guard(() => {
      this.#gate.page({ stream, sequence: frame.sequence, epoch: frame.epoch, item: { frame, link } });
      this.#pump();
    });
  }

  /** The next thing on the control stream opens this epoch. */
  announce(barrier: Announced): void {
    this.#guard(() => {
      if (this.#announced)
        throw new PayloadError(
          `barrier ${barrier.epoch} came in the place of what barrier ${this.#announced.epoch} announced`,
        );
      this.#announced = { epoch: barrier.epoch, upTo: barrier.upTo };
    });
  }

  opaque(frame: Frame, link: Link): void {
    this.#barrier(async () => {
      await this.#guest.apply({ type: 'opaque', bytes: frame.payload });
      link.consumed(frame);
    });
  }

  layout(layout: RamLayout): void {
    this.#barrier(async () => {
      await this.#guest.apply({ type: 'ram-layout', layout });
      this.#layout = layout;
    });
  }

  /** Resolves when everything before it was applied and the guest has been told. */
  milestone(item: Extract<DestItem, { type: 'state-complete' | 'end' }>): Promise<void> {
    return new Promise((resolve) => {
      this.#barrier(async () => {
        await this.#guest.apply(item);
        resolve();
      });
    });
  }

  close(): void {
    this.#failed = true;
    this.#pool.close();
  }

  #barrier(apply: () => Promise<void>): void {
    this.#guard(() => {
      const announced = this.#announced;
      if (!announced)
        throw new PayloadError('something came on the control stream that no barrier announced');
      this.#announced = undefined;
      this.#gate.barrier({ ...announced, item: { apply } });
      this.#pump();
    });
  }

  /** Hands out whatever may be applied now. */
  #pump(): void {
    for (let handed = this.#gate.next(); handed; handed = this.#gate.next()) {
      if (handed.type === 'barrier') void this.#run(handed, handed.item.apply());
      // Unpacking runs ahead on the workers; the guest gets the frames in the order of the gate.
      else this.#handovers[handed.stream === this.#express ? 'express' : 'bulk'].push(this.#unpack(handed));
    }
  }

  async #apply({ handed, payload, release }: Unpacked, lane: Lane): Promise<void> {
    if (this.#failed) {
      release();
      return;
    }
    const { frame, link } = handed.item;
    let batch: PageBatch;
    try {
      batch = this.#batch(frame, payload, lane, release);
    } catch (error) {
      release();
      throw error;
    }
    const { block, pages } = batch;
    await this.#guest.apply(batch);
    this.#pages += pages.length;
    this.#faults.arrived(block, pages);
    link.consumed(frame);
  }

  /** Never rejects. */
  #run(handed: Handed, work: Promise<void>): Promise<void> {
    return work.then(
      () =>
        this.#guard(() => {
          this.#gate.applied(handed);
          this.#pump();
        }),
      (error: unknown) => this.#fail(error),
    );
  }

  async #unpack(handed: HandedPages): Promise<Unpacked> {
    const { frame } = handed.item;
    const { codec, flags, payload, payloadHash, rawBytes } = frame;
    if (codec === Codec.none) {
      // An answer to a fault was checked when it came.
      if ((flags & FrameFlag.express) === 0) {
        if (payload.length <= HASH_INLINE_BYTES) verifyPayload(frame);
        else await verify(payload, payloadHash);
      }
      if (rawBytes !== payload.length) throw new PayloadError('a page frame has another size than it says');
      return { handed, payload, release: () => {} };
    }
    if (rawBytes > POOL_BUFFER_BYTES)
      throw new PayloadError(`a page frame has ${rawBytes} bytes, ${POOL_BUFFER_BYTES} is the limit`);
    const buffer = await this.#pool.acquire();
    try {
      await unpack(payload, buffer.bytes, { codec: 'lz4', rawBytes, ...payloadHash });
      return { handed, payload: buffer.bytes.subarray(0, rawBytes), release: () => buffer.release() };
    } catch (error) {
      buffer.release();
      throw error;
    }
  }

  #batch(frame: Frame, payload: Uint8Array, lane: Lane, release: () => void): PageBatch {
    const block = this.#layout?.blocks[frame.block];
    if (!block)
      throw new PayloadError(`a page frame names block ${frame.block}, which the layout does not have`);
    const blockPages = block.bytes / PAGE_BYTES;
    // The frame's count is within the link's limit, which a list alone is not.
    const { pages, kinds, contentOffset } = decodePageList(payload, { blockPages, maxPages: frame.count });
    if (pages.length !== frame.count)
      throw new PayloadError('a page frame holds another number of pages than it says');
    return {
      type: 'pages',
      block: blockIndex(frame.block),
      round: round(frame.round),
      lane,
      pages,
      kinds,
      content: payload.subarray(contentOffset),
      headroomBytes: bytes(0),
      release,
    };
  }

  #guard(work: () => void): void {
    if (this.#failed) return;
    try {
      work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onFailure(error);
  }
}
