/** What `auto` means for one guest on one link. Pure. */
import type { ChosenStrategy } from '../options.ts';
import { duration, rate, size } from './words.ts';

export interface StrategyFacts {
  readonly memoryBytes: number;
  /** Measured before the migration, or undefined where that was not possible. */
  readonly dirtyBytesPerSec?: number | undefined;
  /** What the link carries, or undefined when unknown. */
  readonly linkBytesPerSec?: number | undefined;
  /** Guest bytes per byte on the link, 1 if not compressed. */
  readonly compressRatio?: number | undefined;
  readonly postcopyPossible: boolean;
  /** Why not, in words, for the reason. */
  readonly postcopyObstacle?: string | undefined;
  readonly maxDowntimeMs: number;
  readonly deadlineMs?: number | undefined;
}

export interface StrategyChoice {
  readonly strategy: ChosenStrategy;
  readonly why: string;
}

/** Pre-copy is at ease below this share of the bandwidth, and has no chance above the other. */
const EASY = 0.5;
const HOPELESS = 1;

export function chooseStrategy(facts: StrategyFacts): StrategyChoice {
  const { dirtyBytesPerSec: dirty, linkBytesPerSec: link } = facts;
  const bandwidth = link === undefined ? undefined : link * Math.max(1, facts.compressRatio ?? 1);
  if (!facts.postcopyPossible) {
    const why = facts.postcopyObstacle ?? 'this guest or this pair of hosts does not support it';
    return { strategy: 'precopy', why: `Post-copy is not possible: ${why}.` };
  }
  if (bandwidth === undefined || bandwidth <= 0 || dirty === undefined) {
    const unknown = dirty === undefined ? 'dirty rate' : 'bandwidth';
    return {
      strategy: 'hybrid',
      why: `The ${unknown} is not known yet: rounds first, post-copy if they do not converge.`,
    };
  }
  const firstRoundMs = (facts.memoryBytes * 1000) / bandwidth;
  const speeds = `the guest dirties ${rate(dirty)}, the link carries ${rate(bandwidth)} of guest memory`;
  if (facts.deadlineMs !== undefined && firstRoundMs > facts.deadlineMs) {
    return {
      strategy: 'postcopy',
      why: `One round over ${size(facts.memoryBytes)} takes ${duration(firstRoundMs)}, longer than the deadline of ${duration(facts.deadlineMs)}.`,
    };
  }
  // However fast it is, the last round's dirty pages are all that matters for the downtime.
  const fitsAtOnce =
    Math.min(dirty * firstRoundMs, facts.memoryBytes * 1000) / bandwidth <= facts.maxDowntimeMs;
  if (dirty < bandwidth * EASY || fitsAtOnce) {
    return { strategy: 'precopy', why: `Rounds converge: ${speeds}.` };
  }
  if (dirty < bandwidth * HOPELESS) {
    return {
      strategy: 'hybrid',
      why: `Rounds may not converge: ${speeds}; post-copy takes over if they do not.`,
    };
  }
  return { strategy: 'hybrid', why: `Rounds cannot converge: ${speeds}; post-copy follows after them.` };
}
