/**
 * The rounds of Clark et al., NSDI 2005, section 5.3: the first at a minimum rate, each further one at the rate at
 * which the one before was dirtied, plus a constant. The guest stops when that is more than the maximum, or when
 * little is left; then all goes as fast as the hosts can.
 */
import type { SteeringAction } from '@vmferry/engine/policy/steering';
import type { Conductor } from './conductor.ts';

const MBIT = 1e6 / 8;

export interface AdaptiveRate {
  /** Bytes per second. */
  readonly minRate: number;
  readonly maxRate: number;
}

/** What is added to the dirty rate. */
const INCREMENT = 50 * MBIT;
/** Less than this is not worth a round. */
const LITTLE_BYTES = 256 * 1024;
/** Xen's bound on rounds. */
const MOST_ROUNDS = 30;

export function adaptiveRate({ minRate, maxRate }: AdaptiveRate): Conductor {
  let rate = minRate;
  let over = false;
  let rounds = 0;
  const stop = (why: string): SteeringAction[] => {
    over = true;
    rate = 0;
    return [
      { type: 'tell', what: 'switch over', why },
      { type: 'reason', why },
      { type: 'switchover', landsFirst: false },
    ];
  };
  return {
    sampleMs: Number.POSITIVE_INFINITY,
    deadlineMs: Number.POSITIVE_INFINITY,
    get rateLimit() {
      return rate;
    },
    get over() {
      return over;
    },
    headStartPages: Number.POSITIVE_INFINITY,
    landsFirst: false,
    begin: () => [{ type: 'strategy', strategy: 'precopy' }],
    headStartOver: () => [],
    sample: () => [],
    roundEnd: ({ remainingBytes, dirtyBytesPerSec }) => {
      if (over) return [];
      rounds += 1;
      if (remainingBytes < LITTLE_BYTES) return stop('Less than 256 KiB are left.');
      const next = dirtyBytesPerSec + INCREMENT;
      if (next > maxRate) return stop('The guest writes faster than the rate may grow.');
      if (rounds >= MOST_ROUNDS) return stop(`${MOST_ROUNDS} rounds are over.`);
      rate = Math.max(minRate, next);
      return [];
    },
    stopped: () => [],
    dirtyRateMeasured: () => {},
  };
}
