/**
 * What leaves on a link: frames wait for the window and the rate limit, go out in order, each with its number, and are
 * kept until the peer has acknowledged them.
 */
import type { Clock } from './clock.ts';
import { asWireError, WireError } from './errors.ts';
import type { OutgoingFrame } from './frame.ts';
import type { RateLimiter } from './rate-limiter.ts';
import type { InFlightWindow, SendStamp } from './window.ts';

export interface OutboxOptions {
  /** The link's, for messages. */
  readonly name: string;
  readonly clock: Clock;
  readonly window: InFlightWindow;
  readonly rateLimiter: RateLimiter | undefined;
  /** Puts a frame on its way. Throws where that cannot be done. */
  readonly write: (frame: OutgoingFrame, sequence: number) => void;
}

interface Retained {
  readonly frame: OutgoingFrame;
  readonly sequence: number;
  readonly stamp: SendStamp;
}

interface Waiting {
  readonly frame: OutgoingFrame;
  readonly resolve: () => void;
  readonly reject: (error: WireError) => void;
}

interface Drain {
  readonly resolve: () => void;
  readonly reject: (error: WireError) => void;
}

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #retained: Retained[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #draining: Drain[] = [];
  #lastSent = 0;
  #lastAcked = 0;
  #bytesSent = 0;
  #atRateLimit = false;
  /** Nothing leaves any more, because of this. */
  #closed: WireError | undefined;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** The last sequence that was sent; 0 for none. */
  get lastSent(): number {
    return this.#lastSent;
  }

  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** Resolves when the frame is on its way, in the order of the calls. Rejects with why the outbox was closed. */
  async send(frame: OutgoingFrame): Promise<void> {
    if (this.#waiting.length === 0 && this.#mayGo(frame)) {
      this.#transmit(frame, false);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#waiting.push({ frame, resolve, reject });
      this.#pump();
    });
  }

  /** Past the window, the rate limit and the frames that wait for them; its bytes count. */
  sendNow(frame: OutgoingFrame): void {
    this.#options.rateLimiter?.charge(frame.buffer.length);
    this.#transmit(frame, false);
  }

  /** Throws `WireError` E_SEQUENCE for what was not sent, or acknowledged before. */
  acknowledged(upTo: number): void {
    const { clock, name, window } = this.#options;
    if (upTo > this.#lastSent || upTo < this.#lastAcked) {
      throw new WireError(
        'E_SEQUENCE',
        `the peer acknowledged frame ${upTo} of ${name}, after ${this.#lastAcked} and with ${this.#lastSent} sent`,
      );
    }
    if (upTo === this.#lastAcked) return;
    const now = clock.now();
    const released = this.#retained.splice(0, upTo - this.#lastAcked);
    this.#lastAcked = upTo;
    for (const { frame, stamp } of released) {
      window.acknowledged(stamp, now);
      frame.release?.();
    }
    this.#pump();
    if (this.#isDrained) for (const { resolve } of this.#draining.splice(0)) resolve();
  }

  /** Resolves when everything that was sent has been acknowledged. Rejects when the outbox closes before. */
  drained(): Promise<void> {
    if (this.#isDrained) return Promise.resolve();
    if (this.#closed) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => this.#draining.push({ resolve, reject }));
  }

  /** Frames that wait are refused; what was sent is still kept. */
  close(why: WireError): void {
    this.#closed = why;
    for (const { frame, reject } of this.#waiting.splice(0)) {
      frame.release?.();
      reject(why);
    }
  }

  /** The connection has ended: nothing that was sent is going to be acknowledged. */
  lost(why: WireError): void {
    this.close(why);
    for (const { frame } of this.#retained.splice(0)) frame.release?.();
    for (const { reject } of this.#draining.splice(0)) reject(why);
  }

  get #isDrained(): boolean {
    return this.#waiting.length === 0 && this.#retained.length === 0;
  }

  #mayGo(frame: OutgoingFrame): boolean {
    const { rateLimiter, window } = this.#options;
    const bytes = frame.buffer.length;
    if (!window.admits(bytes)) return false;
    if (rateLimiter === undefined) return true;
    if (this.#atRateLimit) return false;
    if (rateLimiter.tryTake(bytes)) return true;
    this.#atRateLimit = true;
    rateLimiter.whenOpen(() => {
      this.#atRateLimit = false;
      this.#pump();
    });
    return false;
  }

  #pump(): void {
    while (this.#closed === undefined) {
      const next = this.#waiting[0];
      if (next === undefined || !this.#mayGo(next.frame)) return;
      this.#waiting.shift();
      try {
        this.#transmit(next.frame, true);
        next.resolve();
      } catch (error) {
        next.reject(asWireError(error, 'E_FRAME', 'a frame cannot be sent'));
      }
    }
  }

  /** @param waited whether the frame had to wait for the window */
  #transmit(frame: OutgoingFrame, waited: boolean): void {
    const { clock, window, write } = this.#options;
    const sequence = this.#lastSent + 1;
    try {
      write(frame, sequence);
    } catch (error) {
      frame.release?.();
      throw error;
    }
    this.#lastSent = sequence;
    this.#bytesSent += frame.buffer.length;
    const stamp = window.sent(frame.buffer.length, clock.now(), waited);
    this.#retained.push({ frame, sequence, stamp });
  }
}
