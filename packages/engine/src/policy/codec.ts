/**
 * `--compress auto`: compress when the link is the bottleneck, send raw when the CPU is. Pure.
 *
 *     raw ──sender mostly blocked on the window──▶ lz4
 *     lz4 ──sender never blocked, or nothing gained──▶ raw
 *
 * Each change is a trial; one that is soon taken back puts the next one off for twice as long, so that two
 * codecs that are equally good do not alternate.
 */
import type { Millis } from '../units.ts';
import { rate } from './words.ts';

export type Codec = 'raw' | 'lz4';

export interface CodecSample {
  /** The share of the time since the last sample that the sender waited for the window, 0 to 1. */
  readonly blockedShare: number;
  /** Guest bytes per second that were acknowledged. */
  readonly guestBytesPerSec: number;
  /** Guest bytes per byte on the link of what was compressed; leave it out under raw. */
  readonly ratio?: number | undefined;
}

export interface CodecState {
  readonly codec: Codec;
  /** When this codec was chosen; null before the first sample. */
  readonly since: Millis | null;
  readonly blocked: number;
  readonly at: Millis | null;
  readonly holdMs: number;
  /** This codec was tried out and has not proved itself yet. */
  readonly trial: boolean;
  /** How long the next codec that wins a trial is kept. */
  readonly backoffMs: number;
  /** What each codec carried when it was last left. */
  readonly rawBytesPerSec: number;
  readonly lz4BytesPerSec: number;
  readonly current: number;
}

export interface CodecDecision {
  readonly codec: Codec;
  /** In words, when the codec changed. */
  readonly change: string | null;
}

const SMOOTH_MS = 300;
const HOLD_MS = 500;
const MAX_HOLD_MS = 30_000;
/** A codec that is kept for this long has proved itself. */
const TRIAL_MS = 2000;
/** The link is the bottleneck above this, and is not below the other. */
const BLOCKED = 0.4;
const FREE = 0.05;
/** Compression that saves less is none. */
const WORTH_RATIO = 1.1;
/** One codec is better than the other by this much at least. */
const BETTER = 1.1;

export function startCodec(codec: Codec = 'lz4'): CodecState {
  return {
    codec,
    since: null,
    blocked: codec === 'lz4' ? BLOCKED : 0,
    at: null,
    holdMs: HOLD_MS,
    trial: true,
    backoffMs: HOLD_MS,
    rawBytesPerSec: 0,
    lz4BytesPerSec: 0,
    current: 0,
  };
}

export function decideCodec(
  state: CodecState,
  sample: CodecSample,
  now: Millis,
): { readonly state: CodecState; readonly decision: CodecDecision } {
  const seen = observe(state, sample, now);
  if (now - (seen.since ?? now) < seen.holdMs) return stay(seen);
  if (seen.codec === 'raw') {
    if (seen.blocked < BLOCKED) return stay(seen);
    return change(seen, 'lz4', now, `The link is the bottleneck at ${rate(seen.current)}: compressing.`);
  }
  if (sample.ratio !== undefined && sample.ratio < WORTH_RATIO) {
    return change(
      seen,
      'raw',
      now,
      `Compression gains nothing (${sample.ratio.toFixed(2)} to 1): sending raw.`,
    );
  }
  if (seen.rawBytesPerSec > seen.current * BETTER) {
    return change(
      seen,
      'raw',
      now,
      `Raw carried ${rate(seen.rawBytesPerSec)}, compressed ${rate(seen.current)}: sending raw.`,
    );
  }
  const worthTrying = seen.rawBytesPerSec === 0 || seen.rawBytesPerSec * BETTER > seen.current;
  if (seen.blocked <= FREE && worthTrying) {
    return change(
      seen,
      'raw',
      now,
      `The link is never full, the CPU is the bottleneck at ${rate(seen.current)}: sending raw.`,
    );
  }
  return stay(seen);
}

function observe(state: CodecState, sample: CodecSample, now: Millis): CodecState {
  const keep = state.at === null ? 1 : Math.exp(-Math.max(0, now - state.at) / SMOOTH_MS);
  const first = state.current === 0;
  return {
    ...state,
    since: state.since ?? now,
    at: now,
    blocked: sample.blockedShare + (state.blocked - sample.blockedShare) * keep,
    current: first
      ? sample.guestBytesPerSec
      : sample.guestBytesPerSec + (state.current - sample.guestBytesPerSec) * keep,
  };
}

function change(state: CodecState, codec: Codec, now: Millis, why: string): ReturnType<typeof decideCodec> {
  // A trial that is soon taken back puts the next one off; the one after it begins without that burden.
  const proved = now - (state.since ?? now) >= TRIAL_MS;
  const takenBack = state.trial && !proved;
  const backoffMs = takenBack ? longer(state.backoffMs) : state.trial ? HOLD_MS : state.backoffMs;
  return {
    state: {
      ...state,
      codec,
      since: now,
      // The new codec starts without prejudice, halfway between the two marks.
      blocked: (BLOCKED + FREE) / 2,
      current: 0,
      holdMs: takenBack ? backoffMs : HOLD_MS,
      trial: !takenBack,
      backoffMs,
      rawBytesPerSec: state.codec === 'raw' ? state.current : state.rawBytesPerSec,
      lz4BytesPerSec: state.codec === 'lz4' ? state.current : state.lz4BytesPerSec,
    },
    decision: { codec, change: why },
  };
}

function stay(state: CodecState): ReturnType<typeof decideCodec> {
  return { state, decision: { codec: state.codec, change: null } };
}

function longer(holdMs: number): number {
  return Math.min(MAX_HOLD_MS, holdMs * 2);
}
