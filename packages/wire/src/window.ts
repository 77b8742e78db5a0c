/**
 * How many bytes may be in flight: near the bandwidth-delay product, never "as much as the socket takes",
 * because what is buffered between the hosts counts as downtime.
 *
 *     window = clamp(max(gain × delivered rate × least round trip + one frame, floor), minBytes, maxBytes)
 *     floor  = min(delivered rate × floorMs, floorBytes)
 *
 * The floor keeps the receiver's workers busy where the round trip is nothing, and costs no more than its time.
 *
 * After BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): the rate is a windowed
 * maximum of delivery-rate samples, the round trip a windowed minimum. The window itself keeps a small queue
 * standing, so a least round trip that grew old is measured again with the window down at its floor:
 *
 *     steady ── least round trip older than its horizon ──▶ probing
 *        ▲                                                     │
 *        └── one round trip of frames sent while probing ──────┘
 *
 * Pure: time comes with every call, in monotonic milliseconds. Sizes are in bytes, rates in bytes per second.
 */
export interface WindowOptions {
  readonly minBytes: number;
  readonly floorMs: number;
  readonly floorBytes: number;
  readonly maxBytes: number;
  readonly gain: number;
  /** A delivery rate is remembered for so long. */
  readonly rateHorizonMs: number;
  /** A least round trip is believed for so long. */
  readonly rttHorizonMs: number;
}

export const DEFAULT_WINDOW: WindowOptions = {
  minBytes: 128 * 1024,
  floorMs: 20,
  floorBytes: 2 * 1024 * 1024,
  maxBytes: 8 * 1024 * 1024,
  gain: 1.25,
  rateHorizonMs: 1000,
  rttHorizonMs: 10_000,
};

/** For a configured maximum, which may be below the usual minimum. */
export function windowUpTo(maxBytes: number): Pick<WindowOptions, 'minBytes' | 'maxBytes'> {
  return { maxBytes, minBytes: Math.min(DEFAULT_WINDOW.minBytes, maxBytes) };
}

/** What is kept of a frame from when it is sent until it is acknowledged. */
export interface SendStamp {
  readonly bytes: number;
  readonly sentAt: number;
  readonly burstBegan: number;
  readonly delivered: number;
  readonly deliveredAt: number;
  /** The sender had more than the window took, so what this frame measures is the path's rate. */
  readonly pathLimited: boolean;
  readonly probe: boolean;
}

const BUCKETS = 8;
/** No clock here tells shorter times apart. */
const SHORTEST_MS = 0.001;

/** The largest value within a horizon, in eight steps of time. */
class WindowedMax {
  readonly #width: number;
  readonly #buckets: { index: number; max: number }[] = [];

  constructor(horizonMs: number) {
    this.#width = horizonMs / BUCKETS;
  }

  get value(): number {
    let max = 0;
    for (const bucket of this.#buckets) max = Math.max(max, bucket.max);
    return max;
  }

  add(value: number, now: number): void {
    const index = Math.floor(now / this.#width);
    const newest = this.#buckets.at(-1);
    if (newest?.index === index) newest.max = Math.max(newest.max, value);
    else this.#buckets.push({ index, max: value });
    while (this.#buckets[0]!.index <= index - BUCKETS) this.#buckets.shift();
  }
}

export class InFlightWindow {
  readonly #options: WindowOptions;
  readonly #rate: WindowedMax;
  readonly #path: WindowedMax;
  #maxBytes: number;
  #inFlight = 0;
  #delivered = 0;
  #deliveredAt = 0;
  #burstBegan = 0;
  /** Of late: what is sent on a link that has become slow is cut smaller. */
  readonly #frames: WindowedMax;
  #leastRtt = Number.POSITIVE_INFINITY;
  #leastRttAt = 0;
  /** Size of the frame that `#leastRtt` was measured with. */
  #leastRttBytes = 0;
  #smoothedRtt = 0;
  #probe: { best: number; endsAt: number } | undefined;

  constructor(options: Partial<WindowOptions> = {}) {
    this.#options = { ...DEFAULT_WINDOW, ...options };
    if (!(this.#options.minBytes > 0 && this.#options.maxBytes >= this.#options.minBytes)) {
      throw new RangeError('a window needs 0 < minBytes <= maxBytes');
    }
    this.#maxBytes = this.#options.maxBytes;
    this.#rate = new WindowedMax(this.#options.rateHorizonMs);
    this.#frames = new WindowedMax(this.#options.rttHorizonMs);
    this.#path = new WindowedMax(this.#options.rttHorizonMs);
  }

  get bytesInFlight(): number {
    return this.#inFlight;
  }

  /** 0 until it was measured. */
  get rateBytesPerSec(): number {
    return this.#rate.value * 1000;
  }

  /** What the path was seen to carry when the sender had more than it took; 0 before. Kept through a lull. */
  get pathBytesPerSec(): number {
    return this.#path.value * 1000;
  }

  /** The least round trip of late, from handing a frame over to learning that it was consumed; 0 if unknown. */
  get leastRttMs(): number {
    return Number.isFinite(this.#leastRtt) ? this.#leastRtt : 0;
  }

  get smoothedRttMs(): number {
    return this.#smoothedRtt;
  }

  get size(): number {
    const { minBytes, gain, floorMs, floorBytes } = this.#options;
    const rate = this.#rate.value;
    const product = gain * rate * this.leastRttMs + this.#frames.value;
    const floor = Math.min(rate * floorMs, floorBytes);
    const wanted = this.#probe === undefined ? Math.max(product, floor) : 0;
    return Math.min(this.#maxBytes, Math.max(minBytes, wanted));
  }

  /** Lowers the maximum, below the minimum too: what the peer is willing to hold comes first. */
  limit(maxBytes: number): void {
    this.#maxBytes = Math.min(this.#maxBytes, maxBytes);
  }

  /** Whether a frame may be sent now. One that is larger than the window goes when nothing is in flight. */
  admits(bytes: number): boolean {
    return this.#inFlight === 0 || this.#inFlight + bytes <= this.size;
  }

  /** @param waited whether the frame had to wait for the window */
  sent(bytes: number, now: number, waited: boolean): SendStamp {
    if (this.#inFlight === 0) {
      this.#burstBegan = now;
      this.#deliveredAt = now;
    }
    this.#beginProbe(now);
    const stamp: SendStamp = {
      bytes,
      sentAt: now,
      burstBegan: this.#burstBegan,
      delivered: this.#delivered,
      deliveredAt: this.#deliveredAt,
      pathLimited: waited,
      probe: this.#probe !== undefined && this.#inFlight <= this.#options.minBytes,
    };
    this.#inFlight += bytes;
    this.#frames.add(bytes, now);
    return stamp;
  }

  /** Frames are acknowledged in the order in which they were sent. */
  acknowledged(stamp: SendStamp, now: number): void {
    this.#inFlight -= stamp.bytes;
    this.#delivered += stamp.bytes;
    const interval = Math.max(stamp.sentAt - stamp.burstBegan, now - stamp.deliveredAt);
    this.#deliveredAt = now;
    this.#burstBegan = stamp.sentAt;
    this.#measureRtt(stamp, now);
    // Acknowledgements that were held up and came at once would measure the host's memory.
    if (interval < SHORTEST_MS || interval < this.leastRttMs) return;
    const rate = (this.#delivered - stamp.delivered) / interval;
    if (stamp.pathLimited) this.#path.add(rate, now);
    if (stamp.pathLimited || rate > this.#rate.value) this.#rate.add(rate, now);
  }

  #beginProbe(now: number): void {
    if (this.#probe !== undefined || this.leastRttMs === 0) return;
    if (now - this.#leastRttAt > this.#options.rttHorizonMs) {
      this.#probe = { best: Number.POSITIVE_INFINITY, endsAt: Number.POSITIVE_INFINITY };
    }
  }

  #measureRtt(stamp: SendStamp, now: number): void {
    const rtt = now - stamp.sentAt;
    this.#smoothedRtt = this.#smoothedRtt === 0 ? rtt : this.#smoothedRtt + (rtt - this.#smoothedRtt) / 8;
    // A small frame's round trip says nothing of how long a large one takes to cross and to be consumed.
    const largest = this.#frames.value;
    if (stamp.bytes * 4 < largest) return;
    const outgrown = this.#leastRttBytes * 4 < largest;
    if (rtt <= this.#leastRtt || outgrown) this.#believe(rtt, stamp.bytes, now);
    const probe = this.#probe;
    if (probe === undefined || !stamp.probe) return;
    probe.best = Math.min(probe.best, rtt);
    probe.endsAt = Math.min(probe.endsAt, now + rtt);
    if (now >= probe.endsAt) {
      this.#believe(probe.best, stamp.bytes, now);
      this.#probe = undefined;
    }
  }

  #believe(rtt: number, bytes: number, now: number): void {
    this.#leastRtt = rtt;
    this.#leastRttAt = now;
    this.#leastRttBytes = bytes;
  }
}
