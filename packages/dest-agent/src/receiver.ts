/**
 * Frames become items again and reach the guest in an order that is right on any number of streams.
 *
 *     page frame ──▶ gate ──▶ unpacked on a worker ──▶ guest ──▶ consumed (acknowledged)
 *     barrier + what follows it on the control stream ──▶ gate ──▶ guest ──▶ consumed
 *
 * Nothing is acknowledged before the guest's hypervisor has taken it, so what is held here is bounded by the
 * source's windows.
 */
import { type Applicable, ApplyOrder } from '@vmferry/engine/carriage/apply-order';
import { BATCH_PAYLOAD_BYTES } from '@vmferry/engine/carriage/batch-limits';
import { decodePageList } from '@vmferry/engine/carriage/page-payload';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import type { DestGuest, DestItem, Lane, PageBatch, RamLayout } from '@vmferry/engine/guest';
import { blockIndex, bytes, PAGE_BYTES, round } from '@vmferry/engine/units';
import { BufferPool } from '@vmferry/native/buffer-pool';
import { unpack } from '@vmferry/native/kernels';
import { Codec, type Frame, FrameFlag, verifyPayload } from '@vmferry/wire/frame';
import type { Link } from '@vmferry/wire/link';
import type { FaultTimes } from './fault-times.ts';

const POOL_BUFFER_BYTES = BATCH_PAYLOAD_BYTES;

interface PageJob {
  readonly frame: Frame;
  readonly link: Link;
}

interface BarrierJob {
  readonly apply: () => Promise<void>;
}

type Handed = Applicable<PageJob, BarrierJob>;

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
  #layout: RamLayout | undefined;
  #announced: Announced | undefined;
  #bulkTail: Promise<void> = Promise.resolve();
  #failed = false;
  #pages = 0;

  constructor(options: ReceiverOptions) {
    this.#guest = options.guest;
    this.#express = options.dataStreams;
    this.#gate = new ApplyOrder({ streams: options.dataStreams + 1, express: this.#express });
    this.#pool = new BufferPool({
      bufferBytes: POOL_BUFFER_BYTES,
      maxBuffers: Math.max(4, Math.floor(options.bufferBytes / 4 / POOL_BUFFER_BYTES)),
    });
    this.#faults = options.faults;
    this.#onFailure = options.onFailure;
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
      if (handed.type === 'barrier') this.#run(handed, handed.item.apply());
      else if (handed.stream === this.#express) this.#run(handed, this.#applyPages(handed, 'express'));
      else this.#applyInOrder(handed);
    }
  }

  /** Unpacking runs ahead on the workers; the guest gets the frames in the order of the gate. */
  #applyInOrder(handed: Extract<Handed, { type: 'pages' }>): void {
    const batch = this.#unpack(handed.item.frame, 'bulk');
    batch.catch(() => {});
    const before = this.#bulkTail;
    const handover = before.then(async () => {
      const unpacked = await batch;
      // Handed to the guest in order; that it has taken it is awaited beside the next one.
      this.#run(handed, this.#apply(unpacked, handed.item));
    });
    this.#bulkTail = handover.catch((error: unknown) => this.#fail(error));
  }

  async #applyPages(handed: Extract<Handed, { type: 'pages' }>, lane: Lane): Promise<void> {
    await this.#apply(await this.#unpack(handed.item.frame, lane), handed.item);
  }

  async #apply(batch: PageBatch, { frame, link }: PageJob): Promise<void> {
    if (this.#failed) {
      batch.release();
      return;
    }
    const { block, pages } = batch;
    await this.#guest.apply(batch);
    this.#pages += pages.length;
    this.#faults.arrived(block, pages);
    link.consumed(frame);
  }

  #run(handed: Handed, work: Promise<void>): void {
    work.then(
      () =>
        this.#guard(() => {
          this.#gate.applied(handed);
          this.#pump();
        }),
      (error: unknown) => this.#fail(error),
    );
  }

  async #unpack(frame: Frame, lane: Lane): Promise<PageBatch> {
    const block = this.#layout?.blocks[frame.block];
    if (!block)
      throw new PayloadError(`a page frame names block ${frame.block}, which the layout does not have`);
    if (frame.codec === Codec.none) {
      if ((frame.flags & FrameFlag.express) === 0) verifyPayload(frame);
      if (frame.rawBytes !== frame.payload.length)
        throw new PayloadError('a page frame has another size than it says');
      return this.#batch(frame, frame.payload, block.bytes / PAGE_BYTES, lane, () => {});
    }
    const pooled = frame.rawBytes <= POOL_BUFFER_BYTES ? await this.#pool.acquire() : undefined;
    const buffer = pooled?.bytes ?? Buffer.allocUnsafeSlow(frame.rawBytes);
    try {
      await unpack(frame.payload, buffer, { codec: 'lz4', rawBytes: frame.rawBytes, ...frame.payloadHash });
      const payload = buffer.subarray(0, frame.rawBytes);
      return this.#batch(frame, payload, block.bytes / PAGE_BYTES, lane, () => pooled?.release());
    } catch (error) {
      pooled?.release();
      throw error;
    }
  }

  #batch(frame: Frame, payload: Uint8Array, blockPages: number, lane: Lane, release: () => void): PageBatch {
    const { pages, kinds, contentOffset } = decodePageList(payload, { blockPages });
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
