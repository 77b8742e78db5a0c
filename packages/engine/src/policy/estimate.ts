/**
 * Smoothed bandwidth and dirty rate, and the downtime that they predict. Pure: a new estimate for each
 * sample.
 */
import { type Bytes, type BytesPerSec, bytesPerSec, type Millis, millis } from '../units.ts';

/** Device state, commit and resumption: assumed until measured. */
export const ASSUMED_OVERHEAD_MS = 30;
/** A link of which nothing is known yet is taken for this slow, in bytes per second. */
const ASSUMED_BANDWIDTH = 1_000_000;
/** The bandwidth has a quick and a slow average and the lower one counts: drops are believed at once. */
const QUICK_MS = 400;
const SLOW_MS = 3000;
const DIRTY_MS = 2000;
/** With less than this to send, a low bandwidth says nothing about the link. */
const APP_LIMITED_BYTES = 1024 * 1024;

export interface RateSample {
  readonly remainingBytes: Bytes;
  readonly dirtyBytesPerSec: BytesPerSec;
  /** Guest bytes per second that were really acknowledged; leave it out where it was not measured. */
  readonly bandwidthBytesPerSec?: BytesPerSec | undefined;
}

export interface Estimate {
  /** 0 while unknown. */
  readonly quickBandwidth: number;
  readonly slowBandwidth: number;
  readonly dirty: number;
  readonly overheadMs: number;
  /** The stamps of the last samples that counted; null before the first. */
  readonly bandwidthAt: Millis | null;
  readonly dirtyAt: Millis | null;
}

export function newEstimate(overheadMs: number = ASSUMED_OVERHEAD_MS): Estimate {
  return { quickBandwidth: 0, slowBandwidth: 0, dirty: 0, overheadMs, bandwidthAt: null, dirtyAt: null };
}

export function observe(estimate: Estimate, sample: RateSample, now: Millis): Estimate {
  return observeDirty(observeBandwidth(estimate, sample, now), sample, now);
}

/** What the link carries, cautiously: 0 when a measured link stands still. */
export function bandwidthOf(estimate: Estimate): BytesPerSec {
  if (estimate.bandwidthAt === null) return bytesPerSec(ASSUMED_BANDWIDTH);
  return bytesPerSec(Math.min(estimate.quickBandwidth, estimate.slowBandwidth));
}

export function dirtyRateOf(estimate: Estimate): BytesPerSec {
  return bytesPerSec(estimate.dirty);
}

/** How long `bytes` take on the link. */
export function transferMs(estimate: Estimate, bytes: number): Millis {
  if (bytes <= 0) return millis(0);
  const bandwidth = bandwidthOf(estimate);
  return millis(bandwidth > 0 ? (bytes * 1000) / bandwidth : Number.POSITIVE_INFINITY);
}

/** The downtime if the guest stopped now with `finalBytes` left to send. */
export function predictDowntime(estimate: Estimate, finalBytes: number): Millis {
  return millis(transferMs(estimate, finalBytes) + estimate.overheadMs);
}

function observeBandwidth(estimate: Estimate, sample: RateSample, now: Millis): Estimate {
  const bandwidth = sample.bandwidthBytesPerSec;
  if (bandwidth === undefined || !(bandwidth >= 0)) return estimate;
  const appLimited = sample.remainingBytes < APP_LIMITED_BYTES;
  if (appLimited && bandwidth <= estimate.quickBandwidth) return estimate;
  if (estimate.bandwidthAt === null) {
    // A first 0 is a link that has not started yet rather than one that carries nothing.
    if (bandwidth === 0) return estimate;
    return { ...estimate, quickBandwidth: bandwidth, slowBandwidth: bandwidth, bandwidthAt: now };
  }
  const passed = now - estimate.bandwidthAt;
  return {
    ...estimate,
    quickBandwidth: blend(estimate.quickBandwidth, bandwidth, passed, QUICK_MS),
    slowBandwidth: blend(estimate.slowBandwidth, bandwidth, passed, SLOW_MS),
    bandwidthAt: now,
  };
}

function observeDirty(estimate: Estimate, sample: RateSample, now: Millis): Estimate {
  const dirty = sample.dirtyBytesPerSec;
  if (!(dirty >= 0)) return estimate;
  if (estimate.dirtyAt === null) return { ...estimate, dirty, dirtyAt: now };
  return { ...estimate, dirty: blend(estimate.dirty, dirty, now - estimate.dirtyAt, DIRTY_MS), dirtyAt: now };
}

/** An exponential average over time, so that frequent samples weigh no more than rare ones. */
function blend(average: number, sample: number, passedMs: number, constantMs: number): number {
  return sample + (average - sample) * Math.exp(-Math.max(0, passedMs) / constantMs);
}
