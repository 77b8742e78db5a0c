import { type Clock, systemClock } from './clock.ts';

/** What may pass at once after a pause, as time at the full rate. */
const BURST_MS = 20;

/**
 * A token bucket, in bytes per second, which several links may share. A frame passes while the bucket is
 * above zero and may take it below, so that every size of frame passes and the rate holds in the long run.
 */
export class RateLimiter {
  readonly #clock: Clock;
  readonly #waiting: (() => void)[] = [];
  #bytesPerSec: number;
  #tokens = 0;
  #filledAt: number;
  #stopTimer: (() => void) | undefined;

  /** @param bytesPerSec 0 for no limit */
  constructor(bytesPerSec: number, clock: Clock = systemClock) {
    this.#clock = clock;
    this.#filledAt = clock.now();
    this.#bytesPerSec = bytesPerSec;
    this.#tokens = this.#burst;
  }

  get bytesPerSec(): number {
    return this.#bytesPerSec;
  }

  get #burst(): number {
    return (this.#bytesPerSec * BURST_MS) / 1000;
  }

  setRate(bytesPerSec: number): void {
    if (!(bytesPerSec >= 0)) throw new RangeError(`a rate must not be ${bytesPerSec}`);
    this.#fill();
    // A debt was measured in bytes at the old rate; to wait for it at a much lower one would be a stall.
    if (this.#tokens < 0 && this.#bytesPerSec > 0)
      this.#tokens *= Math.min(1, bytesPerSec / this.#bytesPerSec);
    this.#bytesPerSec = bytesPerSec;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    this.#wake();
  }

  /** Takes the tokens for `bytes` and answers whether they may pass now. */
  tryTake(bytes: number): boolean {
    this.#fill();
    if (!this.#open) return false;
    this.charge(bytes);
    return true;
  }

  /** Counts bytes that passed without asking. */
  charge(bytes: number): void {
    if (this.#bytesPerSec > 0) this.#tokens -= bytes;
  }

  /** Calls back once when it is worth trying again, in the order of asking. */
  whenOpen(callback: () => void): void {
    this.#waiting.push(callback);
    this.#arm();
  }

  get #open(): boolean {
    return this.#bytesPerSec === 0 || this.#tokens > 0;
  }

  #fill(): void {
    const now = this.#clock.now();
    const earned = ((now - this.#filledAt) * this.#bytesPerSec) / 1000;
    this.#filledAt = now;
    this.#tokens = Math.min(this.#burst, this.#tokens + earned);
  }

  #arm(): void {
    if (this.#stopTimer !== undefined || this.#waiting.length === 0) return;
    this.#fill();
    const ms = this.#open ? 0 : Math.max(1, (-this.#tokens / this.#bytesPerSec) * 1000);
    this.#stopTimer = this.#clock.after(ms, () => {
      this.#stopTimer = undefined;
      this.#wake();
    });
  }

  #wake(): void {
    // Whoever asks again while this runs waits behind those who asked before.
    for (let turn = this.#waiting.length; turn > 0; turn--) {
      this.#fill();
      if (!this.#open) break;
      this.#waiting.shift()?.();
    }
    this.#arm();
  }
}
