/**
 * The order in which the destination applies what several streams bring.
 *
 *     epoch 0 pages ── barrier 1 ── epoch 1 pages ── barrier 2 ── epoch 2 pages ── …
 *
 *     pages of epoch n    wait until barrier n was applied, then come in their stream's order
 *     barrier n           waits until barrier n-1 was applied and every page frame of epoch n-1 is in:
 *                         up to `upTo[stream]` received on each stream, and none of them still on its way
 *
 * So a page that is sent again in a later epoch can never be overtaken by its older copy, on whatever
 * streams the two travel. Inside one epoch only the order within a stream is kept: whoever sends a page
 * twice in one epoch sends it on the same stream twice.
 *
 * A stream whose next frame waits for a barrier need not be read any further; what it waits for comes on
 * other streams. That is how the memory held here stays bounded.
 */
import { PayloadError } from './payload-error.ts';

export interface PageFrame<T> {
  readonly stream: number;
  /** The frame's number on its stream: rises, starts above 0. */
  readonly sequence: number;
  /** How many barriers were sent before it. */
  readonly epoch: number;
  readonly item: T;
}

export interface Barrier<T> {
  /** The epoch that this barrier opens: 1 for the first. */
  readonly epoch: number;
  /** For each stream the sequence of the last page frame that was sent before the barrier, 0 for none. */
  readonly upTo: readonly number[];
  readonly item: T;
}

export type Applicable<P, B> =
  | ({ readonly type: 'pages' } & PageFrame<P>)
  | ({ readonly type: 'barrier' } & Barrier<B>);

/** Barriers that may wait at once; a peer that sends more without pages being due is broken. */
const MAX_WAITING_BARRIERS = 4096;

interface Stream<P> {
  readonly waiting: PageFrame<P>[];
  /** Frames in `waiting` before this index were handed out already. */
  head: number;
  lastSequence: number;
  lastEpoch: number;
  inHand: number;
}

/** The gatekeeper: frames and barriers go in as they arrive, `next` gives what may be applied. */
export class ApplyOrder<P, B = P> {
  readonly #streams: Stream<P>[];
  readonly #order: number[];
  readonly #barriers: Barrier<B>[] = [];
  #barrierHead = 0;
  #barrierInHand = false;
  #lastBarrier = 0;
  #lastUpTo: readonly number[];
  #epoch = 0;
  /** No page of an epoch below this one may come any more. */
  #floor = 0;
  #turn = 0;

  /** `express` is the stream whose frames go first whenever they may go at all. */
  constructor(options: { readonly streams: number; readonly express?: number }) {
    this.#streams = Array.from({ length: options.streams }, () => ({
      waiting: [],
      head: 0,
      lastSequence: 0,
      lastEpoch: 0,
      inHand: 0,
    }));
    this.#lastUpTo = this.#streams.map(() => 0);
    const bulk = this.#streams.map((_, index) => index).filter((index) => index !== options.express);
    this.#order = bulk;
    this.#express = options.express;
  }

  readonly #express: number | undefined;

  /** The epoch whose pages may be applied now. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Nothing waits and nothing is in the applier's hands. */
  get idle(): boolean {
    return (
      this.#barrierHead === this.#barriers.length &&
      !this.#barrierInHand &&
      this.#streams.every((stream) => stream.head === stream.waiting.length && stream.inHand === 0)
    );
  }

  /** Frames of a stream that arrived and were not handed out: the caller stops reading where this grows. */
  waiting(stream: number): number {
    const state = this.#stream(stream);
    return state.waiting.length - state.head;
  }

  /** @throws PayloadError when the frame contradicts what the peer sent before */
  page(frame: PageFrame<P>): void {
    const stream = this.#stream(frame.stream);
    if (frame.sequence <= stream.lastSequence) {
      throw new PayloadError(
        `stream ${frame.stream}: frame ${frame.sequence} came after frame ${stream.lastSequence}`,
      );
    }
    if (frame.epoch < stream.lastEpoch) {
      throw new PayloadError(
        `stream ${frame.stream}: a frame of epoch ${frame.epoch} came after epoch ${stream.lastEpoch}`,
      );
    }
    this.#checkAgainstBarriers(frame);
    stream.lastSequence = frame.sequence;
    stream.lastEpoch = frame.epoch;
    stream.waiting.push(frame);
  }

  /** @throws PayloadError when barriers are out of order or contradict frames that came already */
  barrier(barrier: Barrier<B>): void {
    if (barrier.epoch !== this.#lastBarrier + 1) {
      throw new PayloadError(`barrier ${barrier.epoch} came after barrier ${this.#lastBarrier}`);
    }
    if (barrier.upTo.length !== this.#streams.length) {
      throw new PayloadError(
        `barrier ${barrier.epoch} speaks of ${barrier.upTo.length} streams, there are ${this.#streams.length}`,
      );
    }
    if (this.#barriers.length - this.#barrierHead >= MAX_WAITING_BARRIERS) {
      throw new PayloadError(`more than ${MAX_WAITING_BARRIERS} barriers wait for pages`);
    }
    for (const [index, upTo] of barrier.upTo.entries()) {
      const stream = this.#streams[index]!;
      if (upTo < this.#lastUpTo[index]!) {
        throw new PayloadError(`barrier ${barrier.epoch} takes back frames of stream ${index}`);
      }
      for (let at = stream.head; at < stream.waiting.length; at += 1) {
        const frame = stream.waiting[at]!;
        if (frame.epoch < barrier.epoch !== frame.sequence <= upTo) {
          throw new PayloadError(
            `stream ${index}: frame ${frame.sequence} is on the wrong side of barrier ${barrier.epoch}`,
          );
        }
      }
    }
    this.#lastBarrier = barrier.epoch;
    this.#lastUpTo = barrier.upTo;
    this.#barriers.push(barrier);
  }

  /** What may be applied now, or nothing. Call `applied` with it when it was. */
  next(): Applicable<P, B> | undefined {
    if (this.#barrierInHand) return undefined;
    if (this.#express !== undefined) {
      const frame = this.#take(this.#express);
      if (frame) return frame;
    }
    for (let tries = 0; tries < this.#order.length; tries += 1) {
      const index = this.#order[this.#turn % this.#order.length]!;
      this.#turn = (this.#turn + 1) % this.#order.length;
      const frame = this.#take(index);
      if (frame) return frame;
    }
    return this.#takeBarrier();
  }

  applied(done: Applicable<P, B>): void {
    if (done.type === 'barrier') {
      if (!this.#barrierInHand) throw new RangeError(`barrier ${done.epoch} was not handed out`);
      this.#barrierInHand = false;
      this.#epoch = done.epoch;
      return;
    }
    const stream = this.#stream(done.stream);
    if (stream.inHand === 0) throw new RangeError(`stream ${done.stream} has no frame in hand`);
    stream.inHand -= 1;
  }

  #take(index: number): Applicable<P, B> | undefined {
    const stream = this.#streams[index]!;
    const frame = stream.waiting[stream.head];
    if (frame === undefined || frame.epoch > this.#epoch) return undefined;
    stream.head += 1;
    stream.inHand += 1;
    if (stream.head === stream.waiting.length || stream.head >= 1024) {
      stream.waiting.splice(0, stream.head);
      stream.head = 0;
    }
    return { type: 'pages', ...frame };
  }

  #takeBarrier(): Applicable<P, B> | undefined {
    const barrier = this.#barriers[this.#barrierHead];
    if (barrier === undefined) return undefined;
    for (const [index, stream] of this.#streams.entries()) {
      if (stream.inHand > 0 || stream.lastSequence < barrier.upTo[index]!) return undefined;
      const frame = stream.waiting[stream.head];
      if (frame !== undefined && frame.epoch < barrier.epoch) return undefined;
    }
    this.#barrierHead += 1;
    if (this.#barrierHead === this.#barriers.length || this.#barrierHead >= 1024) {
      this.#barriers.splice(0, this.#barrierHead);
      this.#barrierHead = 0;
    }
    this.#barrierInHand = true;
    this.#floor = barrier.epoch;
    return { type: 'barrier', ...barrier };
  }

  #checkAgainstBarriers(frame: PageFrame<P>): void {
    if (frame.epoch < this.#floor) {
      throw new PayloadError(
        `stream ${frame.stream}: a frame of epoch ${frame.epoch} came in epoch ${this.#floor}`,
      );
    }
    // Epochs are consecutive and `upTo` never falls, so the two barriers next to the frame decide.
    const behind = this.#waitingBarrier(frame.epoch);
    const ahead = this.#waitingBarrier(frame.epoch + 1);
    const wrong =
      (behind !== undefined && frame.sequence <= behind.upTo[frame.stream]!) ||
      (ahead !== undefined && frame.sequence > ahead.upTo[frame.stream]!);
    if (wrong) {
      throw new PayloadError(
        `stream ${frame.stream}: frame ${frame.sequence} is on the wrong side of its epoch's barrier`,
      );
    }
  }

  #waitingBarrier(epoch: number): Barrier<B> | undefined {
    const first = this.#barriers[this.#barrierHead];
    if (first === undefined || epoch < first.epoch) return undefined;
    return this.#barriers[this.#barrierHead + epoch - first.epoch];
  }

  #stream(index: number): Stream<P> {
    const stream = this.#streams[index];
    if (stream === undefined) throw new PayloadError(`there is no stream ${index}`);
    return stream;
  }
}
