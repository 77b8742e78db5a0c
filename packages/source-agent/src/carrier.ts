/**
 * Everything that leaves for the destination on the data, express and control streams.
 *
 *     bulk batch ──▶ stream chosen ──▶ packed on a worker (a few ahead) ──▶ sent in order, within the window
 *     express batch ──▶ sent at once, past every window
 *     barrier ──▶ after everything before it was sent ──▶ control stream
 */
import { packsInHaste } from '@vmferry/engine/carriage/haste';
import { StreamChoice } from '@vmferry/engine/carriage/stream-choice';
import type { PageBatch, RamLayout } from '@vmferry/engine/guest';
import { PAGE_BYTES } from '@vmferry/engine/units';
import type { PackCodec } from '@vmferry/native/kernels';
import type { ControlChannel } from '@vmferry/wire/control';
import { FrameKind, frameAround, type OutgoingFrame } from '@vmferry/wire/frame';
import type { Link } from '@vmferry/wire/link';
import { buildFrameAtOnce, buildPackedFrame, buildPlainFrame, isSmall } from './frame-builder.ts';
import { FrameRoom } from './frame-room.ts';
import { Permits } from './permits.ts';

/**
 * Frames that may be packed, or wait packed, ahead of the window: enough to keep the workers busy. What waits
 * here when the guest stops counts as downtime.
 */
const AHEAD = 3;
/** LZ4's acceleration where packing is hasty. */
const HASTY = 16;
/** Of what the agent may hold, the share of frames on their way. */
const FRAMES_SHARE = 1 / 4;

export interface CarrierOptions {
  readonly control: ControlChannel;
  readonly data: readonly Link[];
  readonly express: Link;
  readonly bufferBytes: number;
  /** Asked for every bulk batch. */
  readonly codec: () => PackCodec;
  /** The destination's hypervisor has taken a batch: content bytes of its raw pages, and its other pages. */
  readonly onDelivered: (contentBytes: number, zeroPages: number) => void;
}

export class Carrier {
  readonly #options: CarrierOptions;
  readonly #choice: StreamChoice;
  readonly #tails: Promise<void>[];
  readonly #permits = new Permits(AHEAD);
  readonly #room: FrameRoom;
  readonly #lastSent: number[];
  #epoch = 0;
  #outstanding = 0;
  #verbatim = false;
  #failure: unknown;
  #landed: (() => void)[] = [];

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.#choice = new StreamChoice(options.data.length);
    this.#tails = options.data.map(() => Promise.resolve());
    this.#lastSent = [...options.data, options.express].map(() => 0);
    this.#room = new FrameRoom(options.bufferBytes * FRAMES_SHARE);
  }

  /** Content bytes of bulk pages that were accepted and that the destination's hypervisor has not taken. */
  get bulkOutstanding(): number {
    return this.#outstanding;
  }

  /** Bulk batches that wait for a window: then the link is the bottleneck. */
  get congested(): boolean {
    return this.#permits.free === 0;
  }

  /** What the link was seen to carry of late, and no more than it may; 0 while that is not known. */
  get linkBytesPerSec(): number {
    const carried = this.#options.data.reduce((sum, link) => sum + link.stats.pathBytesPerSec, 0);
    return Math.min(carried, this.#options.data[0]?.limitBytesPerSec ?? carried);
  }

  get wireBytes(): number {
    const { control, data, express } = this.#options;
    return [control.link, express, ...data].reduce((sum, link) => sum + link.stats.bytesSent, 0);
  }

  /**
   * Resolves when the next batch may come, which is the back-pressure. Takes the batch over; `onLanded` is
   * called when the destination has it, or never will.
   */
  async bulk(batch: PageBatch, onLanded: () => void = () => {}): Promise<void> {
    if (!this.#permits.tryTake()) await this.#permits.take();
    let passage = this.#choice.board(batch.block, batch.pages, batch.content.length);
    while (!passage && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#landed.push(resolve));
      passage = this.#choice.board(batch.block, batch.pages, batch.content.length);
    }
    if (!passage || this.#failure !== undefined) {
      batch.release();
      this.#permits.give();
      onLanded();
      throw this.#failure;
    }
    const booked = passage;
    this.#outstanding += batch.content.length;
    const contentBytes = batch.content.length;
    const zeroPages = batch.pages.length - contentBytes / PAGE_BYTES;
    const frame = this.#build(batch, booked.stream, () => {
      this.#choice.landed(booked);
      this.#outstanding -= contentBytes;
      onLanded();
      for (const resolve of this.#landed.splice(0)) resolve();
      this.#options.onDelivered(contentBytes, zeroPages);
    });
    this.#tails[booked.stream] = this.#send(booked.stream, frame, this.#tails[booked.stream]!);
  }

  async #build(batch: PageBatch, stream: number, onRelease: () => void): Promise<OutgoingFrame> {
    if (isSmall(batch)) return buildFrameAtOnce(batch, 'bulk', this.#epoch, onRelease);
    const codec = this.#options.codec();
    const request = { batch, epoch: this.#epoch, room: this.#room, onRelease };
    return codec === 'none'
      ? await buildPlainFrame(request)
      : await buildPackedFrame({ ...request, lane: 'bulk', codec, acceleration: this.#acceleration(stream) });
  }

  #acceleration(stream: number): number {
    const { bytesInFlight, limitBytesPerSec, window, stats } = this.#options.data[stream]!;
    const pathBytesPerSec = Math.min(stats.pathBytesPerSec || limitBytesPerSec, limitBytesPerSec);
    return packsInHaste({ bytesInFlight, window, pathBytesPerSec }) ? HASTY : 1;
  }

  /** Sends the frame when it is built and the stream's frames `before` it are sent. Never rejects. */
  async #send(stream: number, building: Promise<OutgoingFrame>, before: Promise<void>): Promise<void> {
    const link = this.#options.data[stream]!;
    let frame: OutgoingFrame | undefined;
    let failure: unknown;
    try {
      frame = await building;
    } catch (error) {
      failure = error;
    }
    await before;
    try {
      if (!frame) throw failure;
      await link.send(frame);
      this.#lastSent[stream] = link.lastSent;
    } catch (error) {
      this.#failure ??= error;
    } finally {
      this.#permits.give();
    }
  }

  /**
   * Answers a fault, or sends what lies beside it: past everything. Takes the batch over; `onLanded` as in
   * `bulk`.
   */
  async express(batch: PageBatch, codec: 'none' | 'lz4', onLanded: () => void): Promise<void> {
    const { express, onDelivered } = this.#options;
    const contentBytes = batch.content.length;
    const zeroPages = batch.pages.length - contentBytes / PAGE_BYTES;
    const onRelease = (): void => {
      onLanded();
      onDelivered(contentBytes, zeroPages);
    };
    const frame =
      codec === 'none' || isSmall(batch)
        ? buildFrameAtOnce(batch, 'express', this.#epoch, onRelease)
        : await buildPackedFrame({ batch, lane: 'express', epoch: this.#epoch, codec, onRelease });
    // A barrier may have gone out while it was being packed.
    express.sendNow({ ...frame, epoch: this.#epoch });
    this.#lastSent[this.#lastSent.length - 1] = express.lastSent;
  }

  async opaque(bytes: Uint8Array): Promise<void> {
    await this.#barrier(bytes.length);
    const frame = frameAround(FrameKind.opaque, bytes, this.#epoch);
    await this.#options.control.link.send(this.#verbatim ? this.#asContent(frame, bytes.length) : frame);
  }

  /** From here on the guest's pages are in what is opaque, which counts as content then. */
  carryVerbatim(): void {
    this.#verbatim = true;
  }

  #asContent(frame: OutgoingFrame, contentBytes: number): OutgoingFrame {
    this.#outstanding += contentBytes;
    const release = (): void => {
      frame.release?.();
      this.#outstanding -= contentBytes;
      for (const resolve of this.#landed.splice(0)) resolve();
      this.#options.onDelivered(contentBytes, 0);
    };
    return { ...frame, release };
  }

  async layout(layout: RamLayout): Promise<void> {
    await this.#barrier(0);
    await this.#options.control.sendInOrder({
      type: 'layout',
      blocks: layout.blocks.map(({ name, bytes, hostPageBytes }) => ({ name, bytes, hostPageBytes })),
    });
  }

  async stateComplete(pagesFollow: boolean): Promise<void> {
    await this.#barrier(0);
    await this.#options.control.sendInOrder({
      type: 'state-complete',
      upTo: [...this.#lastSent],
      pagesFollow,
    });
  }

  async end(): Promise<void> {
    await this.#barrier(0);
    await this.#options.control.sendInOrder({ type: 'end', upTo: [...this.#lastSent] });
  }

  /** Resolves when the destination has taken every batch that was accepted; also when a link ends before. */
  async landed(): Promise<void> {
    while (this.#outstanding > 0 && this.#failure === undefined)
      await new Promise<void>((resolve) => this.#landed.push(resolve));
  }

  /** True as soon as the destination has taken everything that was sent; false when a link ends before. */
  async drained(): Promise<boolean> {
    const { control, data, express } = this.#options;
    const links = [control.link, express, ...data];
    return await Promise.all(links.map((link) => link.drained())).then(
      () => true,
      () => false,
    );
  }

  /** Nothing waits any more, and whoever waits is let go. */
  close(error: unknown): void {
    this.#failure ??= error;
    this.#room.close();
    this.#permits.close();
    for (const resolve of this.#landed.splice(0)) resolve();
  }

  /** Everything before has been sent; what follows opens an epoch. */
  async #barrier(bytes: number): Promise<void> {
    await Promise.all(this.#tails);
    if (this.#failure !== undefined) throw this.#failure;
    this.#epoch += 1;
    await this.#options.control.sendInOrder({
      type: 'barrier',
      epoch: this.#epoch,
      upTo: [...this.#lastSent],
      bytes,
    });
  }
}
