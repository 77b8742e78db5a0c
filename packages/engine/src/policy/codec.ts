/**
 * `--compress auto`: compress when the link is the bottleneck, send raw when the CPU is. Pure.
 *
 *     raw ──sender mostly blocked on the window──▶ lz4
 *     lz4 ──sender never blocked, or nothing gained──▶ raw
 *
 * Each change is a trial; one that is soon taken back puts the next one off for twice as long, so that two
 * codecs that are equally good do not alternate. What the other codec carried when it was left is believed for a
 * while, and no codec is tried that was seen to carry no more. A guest's memory is not of one piece, so what
 * compression gains is judged over seconds, not by the page range that is on its way at the moment.
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
  /** What the other codec carried when it was left, at `since`; 0 when it was not tried. */
  readonly otherBytesPerSec: number;
  readonly current: number;
  /** Guest bytes that were compressed, and what they came to on the link; what is old counts less. */
  readonly compressed: { readonly from: number; readonly to: number };
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
/** Compression is judged over about so long, and not before the other. */
const RATIO_MS = 3000;
const JUDGE_MS = 1500;
/** How long it is believed what a codec carried when it was left. */
const BELIEVE_MS = 15_000;
/** Compression that saves less is none. */
const WORTH_RATIO = 1.1;
/** One codec is better than the other by this much at least. */
const BETTER = 1.1;

const NOTHING = { from: 0, to: 0 };

export function startCodec(codec: Codec = 'lz4'): CodecState {
  return {
    codec,
    since: null,
    blocked: codec === 'lz4' ? BLOCKED : 0,
    at: null,
    holdMs: HOLD_MS,
    trial: true,
    backoffMs: HOLD_MS,
    otherBytesPerSec: 0,
    current: 0,
    compressed: NOTHING,
  };
}

export function decideCodec(
  state: CodecState,
  sample: CodecSample,
  now: Millis,
): { readonly state: CodecState; readonly decision: CodecDecision } {
  const seen = observe(state, sample, now);
  const keptMs = now - (seen.since ?? now);
  if (keptMs < seen.holdMs) return stay(seen);
  const other = keptMs < BELIEVE_MS ? seen.otherBytesPerSec : 0;
  const worthTrying = other === 0 || other > seen.current * BETTER;
  if (seen.codec === 'raw') {
    if (seen.blocked < BLOCKED || !worthTrying) return stay(seen);
    return change(seen, 'lz4', now, `The link is the bottleneck at ${rate(seen.current)}: compressing.`);
  }
  const { from, to } = seen.compressed;
  if (keptMs >= JUDGE_MS && to > 0 && from / to < WORTH_RATIO) {
    const why = `Compression gains nothing (${(from / to).toFixed(2)} to 1): sending raw.`;
    const { state: left, decision } = change(seen, 'raw', now, why);
    // That was of these pages, and says nothing of those that come.
    return { state: { ...left, otherBytesPerSec: 0 }, decision };
  }
  if (other > seen.current * BETTER) {
    return change(
      seen,
      'raw',
      now,
      `Raw carried ${rate(other)}, compressed ${rate(seen.current)}: sending raw.`,
    );
  }
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
    compressed: compressedUntil(state, sample, now),
  };
}

function compressedUntil(
  { compressed, at }: CodecState,
  { guestBytesPerSec, ratio }: CodecSample,
  now: Millis,
): CodecState['compressed'] {
  if (ratio === undefined || at === null) return compressed;
  const passedMs = Math.max(0, now - at);
  const keep = Math.exp(-passedMs / RATIO_MS);
  const bytes = (guestBytesPerSec * passedMs) / 1000;
  return { from: compressed.from * keep + bytes, to: compressed.to * keep + bytes / ratio };
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
      otherBytesPerSec: state.current,
      compressed: NOTHING,
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
