/**
 * Pre-copy where only one live round can be relied on: the guest stops at its end, and the one choice that
 * is left is to go over to post-copy before. Pure.
 */
import type { ChosenStrategy } from '../options.ts';
import { type Millis, millis } from '../units.ts';
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
  readonly postcopyPossible: boolean;
}

export type FinalRoundDecision = { readonly expectedDowntimeMs: Millis } & (
  | { readonly action: 'wait' }
  | { readonly action: 'start-postcopy' | 'stop-at-end'; readonly why: string }
);

/** The choice is made with this share of memory or this time to go, whichever is more. */
const LAST_SHARE = 0.25;
const LAST_MS = 400;

export function finalRound(round: FinalRound): FinalRoundDecision {
  const { strategy, remainingBytes, bandwidthBytesPerSec: bandwidth } = round;
  const dirty = Math.min(((round.dirtyBytesPerSec ?? 0) * round.elapsedMs) / 1000, round.memoryBytes);
  const expectedDowntimeMs = millis(bandwidth > 0 ? (dirty * 1000) / bandwidth : 0);
  const last = Math.max(round.memoryBytes * LAST_SHARE, (bandwidth * LAST_MS) / 1000);
  if (remainingBytes > last) return { action: 'wait', expectedDowntimeMs };
  if (strategy === 'hybrid') {
    const why = `One round can be relied on with this hypervisor, and it is nearly over (${size(remainingBytes)} are left).`;
    return { action: 'start-postcopy', why, expectedDowntimeMs };
  }
  const about = `the first round leaves about ${size(dirty)} dirty (${rate(round.dirtyBytesPerSec ?? 0)}), a downtime of about ${duration(expectedDowntimeMs)}`;
  if (strategy === 'undecided' && round.postcopyPossible && expectedDowntimeMs > round.maxDowntimeMs) {
    const why = `Only one round can be relied on with this hypervisor; ${about}, more than the ${duration(round.maxDowntimeMs)} allowed.`;
    return { action: 'start-postcopy', why, expectedDowntimeMs };
  }
  const why = `Only one round can be relied on with this hypervisor; ${about}.`;
  return { action: 'stop-at-end', why, expectedDowntimeMs };
}
