/** Time as it is handed in. Stamps are monotonic milliseconds; only their differences mean something. */
export interface Clock {
  now(): number;
  /** Calls `action` once after `ms`; the answer takes that back. */
  after(ms: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, action) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
};
