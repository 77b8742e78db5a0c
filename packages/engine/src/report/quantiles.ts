/**
 * Quantiles of durations in bounded memory, in log-linear buckets as HdrHistogram has them: 32 buckets for
 * each doubling of a microsecond, so a quantile is at most 1/32 above the true one.
 */
import { type Millis, millis } from '../units.ts';

const STEPS = 32;
/** 2 ** 36 microseconds are 19 hours. */
const DOUBLINGS = 36;

export class Quantiles {
  readonly #counts = new Float64Array(STEPS * (DOUBLINGS + 1));
  #count = 0;
  #max = 0;

  get count(): number {
    return Math.round(this.#count);
  }

  /** The longest, exactly. */
  get max(): Millis {
    return millis(this.#max);
  }

  /** `times`: how many of this duration there were; a model may count parts of one. */
  add(duration: Millis, times = 1): void {
    if (!(duration >= 0)) return;
    this.#counts[bucketOf(duration * 1000)]! += times;
    this.#count += times;
    this.#max = Math.max(this.#max, duration);
  }

  /** The duration that a share of `share` (0 to 1) does not exceed; 0 when there is none. */
  quantile(share: number): Millis {
    const rank = Math.min(this.#count, Math.max(1, Math.ceil(share * this.#count)));
    let seen = 0;
    for (let bucket = 0; bucket < this.#counts.length && this.#count > 0; bucket += 1) {
      seen += this.#counts[bucket]!;
      if (seen >= rank) return millis(Math.min(this.#max, upperEnd(bucket) / 1000));
    }
    return millis(this.#max);
  }
}

/** Below 32 microseconds a bucket is one microsecond wide; above, a 32nd of its power of two. */
function bucketOf(micros: number): number {
  if (micros < STEPS) return Math.floor(micros);
  const doubling = Math.floor(Math.log2(micros / STEPS));
  const step = Math.floor(micros / 2 ** doubling) - STEPS;
  return Math.min(
    STEPS * (DOUBLINGS + 1) - 1,
    STEPS * (doubling + 1) + Math.min(STEPS - 1, Math.max(0, step)),
  );
}

function upperEnd(bucket: number): number {
  if (bucket < STEPS) return bucket + 1;
  const doubling = Math.floor(bucket / STEPS) - 1;
  return (STEPS + (bucket % STEPS) + 1) * 2 ** doubling;
}
