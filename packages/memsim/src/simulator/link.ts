/**
 * What the network between the hosts carries, as it changes over time.
 *
 * A stream gets no more than its window per round trip, and under loss no more than TCP's congestion control
 * leaves it (Mathis et al., 1997); several streams get several shares, also of what others compete for.
 */

/** Ethernet, IP and TCP around each segment: 1448 bytes of payload in a frame of 1514. */
const PAYLOAD_SHARE = 1448 / 1514;
const SEGMENT_BYTES = 1448;
/** Of the formula rate = segment / round trip * constant / sqrt(loss). */
const MATHIS = Math.sqrt(3 / 2);
/** A link that carries nothing for this long is gone. */
export const PATIENCE_MS = 3_600_000;
/** The shortest round trip: two hosts on one switch. */
const LEAST_ROUND_TRIP_MS = 0.05;

export interface LinkConditions {
  /** Bytes per second on the line. 0 carries nothing. */
  readonly bandwidth: number;
  /** One way, in milliseconds. */
  readonly latencyMs: number;
  /** Share of the packets that are lost, 0 up to 1. */
  readonly loss: number;
  /** Traffic that does not give way, in bytes per second. */
  readonly otherBytesPerSec: number;
  /** TCP streams of others that share the line. */
  readonly otherStreams: number;
}

export interface LinkChange {
  /** After the migration's begin. */
  readonly atMs: number;
  readonly conditions: LinkConditions;
}

export class SimulatedLink {
  readonly #changes: readonly LinkChange[];
  readonly #streams: number;
  readonly #windowBytes: number;

  /** @param windowBytes of each stream, the most that is sent ahead of acknowledgements */
  constructor(initial: LinkConditions, changes: readonly LinkChange[], streams: number, windowBytes: number) {
    const later = [...changes].sort((a, b) => a.atMs - b.atMs);
    this.#changes = [{ atMs: Number.NEGATIVE_INFINITY, conditions: initial }, ...later];
    this.#streams = streams;
    this.#windowBytes = windowBytes;
  }

  at(now: number): LinkConditions {
    return this.#changes[this.#lastChange(now)]!.conditions;
  }

  /** Infinite if it stays as it is. */
  nextChange(now: number): number {
    return this.#changes[this.#lastChange(now) + 1]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  /** Index of the last change that is not after `now`. */
  #lastChange(now: number): number {
    let low = 0;
    let high = this.#changes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#changes[middle]!.atMs <= now) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  roundTripMs(now: number): number {
    return Math.max(LEAST_ROUND_TRIP_MS, 2 * this.at(now).latencyMs);
  }

  /** Payload bytes per second that the migration gets, at most `limit` (0: no limit). */
  rate(now: number, limit: number): number {
    const { bandwidth, loss, otherBytesPerSec, otherStreams } = this.at(now);
    const free = Math.max(0, bandwidth - otherBytesPerSec) * PAYLOAD_SHARE;
    const fair = (free * this.#streams) / (this.#streams + otherStreams);
    const roundTrip = this.roundTripMs(now) / 1000;
    const window = (this.#windowBytes * this.#streams) / roundTrip;
    const lossy =
      loss > 0
        ? ((SEGMENT_BYTES * MATHIS) / roundTrip / Math.sqrt(loss)) * this.#streams
        : Number.POSITIVE_INFINITY;
    const rate = Math.min(fair, window, lossy * (1 - loss));
    return limit > 0 ? Math.min(rate, limit) : rate;
  }

  /**
   * When it carries something: `now`, or the change that ends an outage. Infinite where none does, or only after
   * `PATIENCE_MS`.
   */
  carriesFrom(now: number, limit: number): number {
    let at = now;
    while (this.rate(at, limit) === 0) {
      at = this.nextChange(at);
      if (at - now > PATIENCE_MS) return Number.POSITIVE_INFINITY;
    }
    return at;
  }

  /** What slow start costs before the streams are at full speed, in milliseconds. */
  slowStartMs(now: number): number {
    const roundTripMs = this.roundTripMs(now);
    const full = (this.rate(now, 0) * roundTripMs) / 1000 / this.#streams;
    // From ten segments on it doubles each round trip, carrying about half of what full speed would.
    return Math.max(0, Math.log2(full / (10 * SEGMENT_BYTES)) - 1) * roundTripMs;
  }
}
