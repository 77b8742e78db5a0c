/** Faults are frequent while the last one is younger than this, in milliseconds. */
const QUIET_MS = 20;
/** The budget doubles in this time when it is quiet, up to `SLOWEST_DOUBLING_MS` after dense faults. */
const DOUBLING_MS = 10;
const SLOWEST_DOUBLING_MS = 30;
/** Time constant of the fault rate's moving average, in milliseconds. */
const RATE_MS = 200;
/** Faults per second at which the doubling takes longest. */
const DENSE_PER_SEC = 500;

/**
 * How many background pages may be in flight: a page that is asked for in the background delays every
 * fault behind it by its own time on the wire.
 */
export class BackgroundBudget {
  readonly #min: number;
  readonly #max: number;
  #lastFaultMs: number | undefined;
  #perSec = 0;
  #startMs: number | undefined;

  constructor(min: number, max: number) {
    this.#min = Math.max(1, min);
    this.#max = Math.max(this.#min, max);
  }

  fault(now: number): void {
    this.#perSec = this.#rateAt(now) + 1000 / RATE_MS;
    this.#lastFaultMs = now;
  }

  at(now: number): number {
    this.#startMs ??= now;
    const quietMs = now - (this.#lastFaultMs ?? this.#startMs) - QUIET_MS;
    if (quietMs <= 0) return this.#min;
    const dense = Math.min(1, this.#rateAt(now) / DENSE_PER_SEC);
    const doublingMs = DOUBLING_MS + (SLOWEST_DOUBLING_MS - DOUBLING_MS) * dense;
    const doublings = Math.min(30, quietMs / doublingMs);
    return Math.min(this.#max, Math.floor(this.#min * 2 ** doublings));
  }

  #rateAt(now: number): number {
    if (this.#lastFaultMs === undefined) return 0;
    return this.#perSec * Math.exp(-Math.max(0, now - this.#lastFaultMs) / RATE_MS);
  }
}
