/** How much content the destination takes in a second: the most of a few moments, so that a lull is no verdict. */
import { type BytesPerSec, bytesPerSec } from '@vmferry/engine/units';

/** Long enough for several acknowledgements on a slow link. */
const MOMENT_MS = 100;
const MOMENTS = 20;

export class Pace {
  readonly #rates: number[] = [];
  #began: number;
  #bytes = 0;

  /** Times are monotonic milliseconds. */
  constructor(now: number) {
    this.#began = now;
  }

  /** Gives the pace at the end of each moment, else nothing. */
  delivered(contentBytes: number, now: number): BytesPerSec | undefined {
    this.#bytes += contentBytes;
    const passedMs = now - this.#began;
    if (passedMs < MOMENT_MS) return undefined;
    this.#rates.push((this.#bytes * 1000) / passedMs);
    if (this.#rates.length > MOMENTS) this.#rates.shift();
    this.#began = now;
    this.#bytes = 0;
    return bytesPerSec(Math.max(...this.#rates));
  }
}
