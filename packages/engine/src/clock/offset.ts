/**
 * Two hosts' wall clocks, reconciled as NTP does it (RFC 5905, section 8): the sample with the shortest
 * round trip is the best, its error is at most half that round trip, and the error grows with its age by
 * the most that two crystals may drift apart.
 */
import { type Millis, millis } from '../units.ts';

/** Four stamps of one exchange: sent and received here, received and sent there. Milliseconds. */
export interface ClockSample {
  /** Sent, local clock. */
  readonly t0: Millis;
  /** Received, remote clock. */
  readonly t1: Millis;
  /** Answered, remote clock. */
  readonly t2: Millis;
  /** Answer received, local clock. */
  readonly t3: Millis;
}

export interface ClockEstimate {
  /** Remote clock minus local clock. */
  readonly offsetMs: Millis;
  /** The true offset lies within this of `offsetMs`. */
  readonly uncertaintyMs: Millis;
  readonly rttMs: Millis;
}

export interface MeasuredDowntime {
  readonly downtimeMs: Millis;
  readonly uncertaintyMs: Millis;
}

/** Two uncorrected crystals drift apart by at most this share of the time that passes. */
export const DRIFT = 50e-6;
/** Samples that are kept. */
const WINDOW = 64;

interface Kept {
  readonly offset: number;
  readonly rtt: number;
  readonly at: number;
}

/** Collects samples of one peer's clock. */
export class ClockOffset {
  #kept: Kept[] = [];
  #steps = 0;

  /** How often a clock was seen to jump, which made all earlier samples worthless. */
  get steps(): number {
    return this.#steps;
  }

  /** Takes a sample in; returns false for one that cannot be (a clock was set between two of its stamps). */
  add(sample: ClockSample): boolean {
    const { t0, t1, t2, t3 } = sample;
    const rtt = t3 - t0 - (t2 - t1);
    const offset = (t1 - t0 + (t2 - t3)) / 2;
    if (!Number.isFinite(rtt) || !Number.isFinite(offset) || rtt < 0 || t2 < t1 || t3 < t0) return false;
    const best = this.#best(t3);
    if (best !== undefined && Math.abs(offset - best.offset) > rtt / 2 + uncertainty(best, t3)) {
      this.#kept = [];
      this.#steps += 1;
    }
    this.#kept.push({ offset, rtt, at: t3 });
    if (this.#kept.length > WINDOW) this.#kept.shift();
    return true;
  }

  /** The offset as known at `now` (local clock), or undefined before the first sample. */
  estimate(now: Millis): ClockEstimate | undefined {
    const best = this.#best(now);
    if (best === undefined) return undefined;
    return {
      offsetMs: millis(best.offset),
      uncertaintyMs: millis(uncertainty(best, now)),
      rttMs: millis(best.rtt),
    };
  }

  #best(now: number): Kept | undefined {
    let best: Kept | undefined;
    for (const kept of this.#kept) {
      if (best === undefined || uncertainty(kept, now) < uncertainty(best, now)) best = kept;
    }
    return best;
  }
}

/**
 * How long the guest stood still, from its stop by the local clock to its resumption by the remote one.
 * Never negative: where the difference says so, 0, and the uncertainty covers the difference.
 */
export function downtimeAcross(
  stoppedAtLocal: Millis,
  resumedAtRemote: Millis,
  clock: ClockEstimate,
): MeasuredDowntime {
  const between = resumedAtRemote - clock.offsetMs - stoppedAtLocal;
  return {
    downtimeMs: millis(Math.max(0, between)),
    uncertaintyMs: millis(Math.max(clock.uncertaintyMs, -between)),
  };
}

function uncertainty(kept: Kept, now: number): number {
  return kept.rtt / 2 + DRIFT * Math.abs(now - kept.at);
}
