/** When the accesses of a stream are due, in milliseconds of the workload's clock. */
export interface Schedule {
  /** How many accesses are due by this time. Never falls as time goes on. */
  due(ms: number): number;
  /** When access n (from 0) is due; infinite for one that never is. */
  time(n: number): number;
}

export function steady(perSec: number): Schedule {
  return {
    due: (ms) => Math.floor((ms * perSec) / 1000),
    time: (n) => ((n + 1) * 1000) / perSec,
  };
}

/** So many at once, every so often; the first when that time has passed once. */
export function bursts(size: number, everyMs: number): Schedule {
  return {
    due: (ms) => Math.floor(ms / everyMs) * size,
    time: (n) => (Math.floor(n / size) + 1) * everyMs,
  };
}

/** At these times, which never fall. */
export function recorded(times: Float64Array): Schedule {
  return {
    due: (ms) => {
      let low = 0;
      let high = times.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (times[middle]! <= ms) low = middle + 1;
        else high = middle;
      }
      return low;
    },
    time: (n) => times[n] ?? Number.POSITIVE_INFINITY,
  };
}

/** A phase: the inner clock goes only from `fromMs` to `toMs` of every period. */
export function gated(inner: Schedule, periodMs: number, fromMs: number, toMs: number): Schedule {
  const turn = toMs - fromMs;
  return {
    due: (ms) => {
      const whole = Math.floor(ms / periodMs);
      const within = Math.min(Math.max(ms - whole * periodMs - fromMs, 0), turn);
      return inner.due(whole * turn + within);
    },
    time: (n) => {
      const active = inner.time(n);
      if (active === Number.POSITIVE_INFINITY) return active;
      // The very end of a turn belongs to it, not to the next.
      const whole = Math.max(0, Math.ceil(active / turn) - 1);
      return whole * periodMs + fromMs + (active - whole * turn);
    },
  };
}
