/** How much content the destination takes in a second: the most of a few moments, so that a lull is no verdict. */
import { type BytesPerSec, bytesPerSec } from '@vmferry/engine/units';

/** Long enough for several acknowledgements on a slow link. */
const MOMENT_MS = 100;
/** The first one's: batches are of a size that was not measured until then. */
const FIRST_MOMENT_MS = 25;
const MOMENTS = 20;

export class Pace {
  readonly #rates: number[] = [];
  #began: number | undefined;
  #bytes = 0;

  /**
   * Gives the pace at the end of each moment, else nothing. The first begins with the first delivery: what was waited
   * for before, and what that delivery took, tell nothing of the destination. `now` is monotonic milliseconds.
   */
  delivered(contentBytes: number, now: number): BytesPerSec | undefined {
    if (this.#began === undefined) {
      this.#began = now;
      return undefined;
    }
    this.#bytes += contentBytes;
    const passedMs = now - this.#began;
    if (passedMs < (this.#rates.length === 0 ? FIRST_MOMENT_MS : MOMENT_MS)) return undefined;
    this.#rates.push((this.#bytes * 1000) / passedMs);
    if (this.#rates.length > MOMENTS) this.#rates.shift();
    this.#began = now;
    this.#bytes = 0;
    return bytesPerSec(Math.max(...this.#rates));
  }
}
