/**
 * Pre-copy where only one live round can be relied on: the guest stops at its end, and the one choice that
 * is left is to go over to post-copy before, or to give up. Pure.
 */
import type { ChosenStrategy } from '../options.ts';
import { type Millis, millis } from '../units.ts';
import type { StallAction } from './convergence.ts';
import { duration, rate, size } from './words.ts';

export interface FinalRound {
  readonly strategy: ChosenStrategy | 'undecided';
  readonly memoryBytes: number;
  /** Of the round. */
  readonly remainingBytes: number;
  readonly elapsedMs: number;
  /** Undefined while it is not known. */
  readonly dirtyBytesPerSec: number | undefined;
  /** 0 while it is not known. */
  readonly bandwidthBytesPerSec: number;
  readonly maxDowntimeMs: number;
  /** What the operator wants to be done where the downtime would be longer; undefined: nothing was said. */
  readonly onStall: StallAction | undefined;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
}

/** The expected downtime is undefined where a rate is not known. */
export type FinalRoundDecision = { readonly expectedDowntimeMs: Millis | undefined } & (
  | { readonly action: 'wait' }
  | Judgement
);

interface Judgement {
  readonly action: 'start-postcopy' | 'stop-at-end' | 'abort';
  readonly why: string;
}

/** The choice is made with this share of memory or this time to go, whichever is more. */
const LAST_SHARE = 0.25;
const LAST_MS = 400;
const ONE_ROUND = 'Only one round can be relied on with this hypervisor';

export function finalRound(round: FinalRound): FinalRoundDecision {
  const { strategy, remainingBytes, bandwidthBytesPerSec: bandwidth, dirtyBytesPerSec } = round;
  const dirty = Math.min(((dirtyBytesPerSec ?? 0) * round.elapsedMs) / 1000, round.memoryBytes);
  const downtimeMs = millis(bandwidth > 0 ? (dirty * 1000) / bandwidth : 0);
  const known = dirtyBytesPerSec !== undefined && bandwidth > 0;
  const expectedDowntimeMs = known ? downtimeMs : undefined;
  const lastMoment = (bandwidth * LAST_MS) / 1000;
  // A measurement that decides and is under way is waited for as long as there is time.
  const waits = dirtyBytesPerSec === undefined && strategy === 'undecided';
  const last = waits ? lastMoment : Math.max(round.memoryBytes * LAST_SHARE, lastMoment);
  if (remainingBytes > last) return { action: 'wait', expectedDowntimeMs };
  if (strategy === 'hybrid') {
    const why = `One round can be relied on with this hypervisor, and it is nearly over (${size(remainingBytes)} are left).`;
    return { action: 'start-postcopy', why, expectedDowntimeMs };
  }
  return { ...(known ? judged(round, dirty, downtimeMs) : unmeasured(round)), expectedDowntimeMs };
}

function judged(round: FinalRound, dirty: number, downtimeMs: number): Judgement {
  const { strategy, dirtyBytesPerSec = 0, maxDowntimeMs, onStall, postcopyObstacle } = round;
  const about = `${ONE_ROUND}; the first round leaves about ${size(dirty)} dirty (${rate(dirtyBytesPerSec)}), a downtime of about ${duration(downtimeMs)}`;
  if (downtimeMs <= maxDowntimeMs) return { action: 'stop-at-end', why: `${about}.` };
  const tooLong = `${about}, more than the ${duration(maxDowntimeMs)} allowed`;
  if (strategy === 'undecided' && postcopyObstacle === undefined)
    return { action: 'start-postcopy', why: `${tooLong}.` };
  switch (onStall) {
    case 'postcopy':
      return postcopyObstacle === undefined
        ? { action: 'start-postcopy', why: `${tooLong}. The rest follows by post-copy.` }
        : { action: 'abort', why: `${tooLong}. Post-copy is not possible: ${postcopyObstacle}.` };
    case 'abort':
      return { action: 'abort', why: `${tooLong}. The operator wants no other means to be taken.` };
    case 'stop':
      return { action: 'stop-at-end', why: `${tooLong}. The operator allows a longer downtime.` };
    case 'throttle':
    case undefined:
      return { action: 'stop-at-end', why: `${tooLong}, and there is no further round to make it shorter.` };
  }
}

/** What is not known is not taken for nothing: at worst all of memory was written again. */
function unmeasured(round: FinalRound): Judgement {
  const { strategy, memoryBytes, bandwidthBytesPerSec: bandwidth, maxDowntimeMs, postcopyObstacle } = round;
  const why = `${ONE_ROUND}, and how much the guest has written meanwhile was not measured`;
  if (strategy !== 'undecided') return { action: 'stop-at-end', why: `${why}.` };
  const worstMs = bandwidth > 0 ? (memoryBytes * 1000) / bandwidth : Number.POSITIVE_INFINITY;
  if (worstMs <= maxDowntimeMs) {
    const atMost = `were it all of its memory, the downtime would be ${duration(worstMs)}`;
    return { action: 'stop-at-end', why: `${why}; ${atMost}.` };
  }
  return postcopyObstacle === undefined
    ? { action: 'start-postcopy', why: `${why}: it may be more than ${duration(maxDowntimeMs)} take.` }
    : { action: 'stop-at-end', why: `${why}. Post-copy is not possible: ${postcopyObstacle}.` };
}
