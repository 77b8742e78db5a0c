/**
 * When pre-copy ends. A pure function over the history of rounds:
 *
 *     round end ──▶ fits into the aimed-for downtime?
 *                     yes: another round pays? ── yes ──▶ continue, aiming lower
 *                                               └─ no ──▶ switchover, at a local minimum
 *                     no:  remaining bytes still fall? ── yes ──▶ continue
 *                                                       └─ no ──▶ stalled: post-copy, throttle, stop, abort
 *     deadline ────▶ fits: switchover; otherwise as if stalled
 *
 * The number of rounds is bounded in every branch, so it always ends.
 */
import type { MigrateRequest, Strategy } from '../options.ts';
import { type Bytes, type BytesPerSec, type Millis, millis, type Round } from '../units.ts';
import { dirtyRateOf, type Estimate, newEstimate, observe, predictDowntime, transferMs } from './estimate.ts';
import { duration, rate, size } from './words.ts';

export type StallAction = NonNullable<MigrateRequest['onStall']>;

export interface Goals {
  readonly maxDowntimeMs: number;
  /** For the whole of pre-copy, from `startConvergence`. */
  readonly deadlineMs?: number | undefined;
  readonly onStall: StallAction;
  /** The hypervisor throttles the guest by itself: how much, nobody can say, and nobody chooses. */
  readonly throttlesItself?: boolean;
}

/** What is done about a stall when the operator did not say. */
export function defaultOnStall(strategy: Strategy, postcopyPossible: boolean): StallAction {
  return strategy !== 'precopy' && postcopyPossible ? 'postcopy' : 'throttle';
}

export interface ConvergenceEvent {
  /** A round end comes right after the dirty log was read: `remainingBytes` is exact. */
  readonly type: 'progress' | 'round-end';
  readonly round: Round;
  readonly remainingBytes: Bytes;
  readonly dirtyBytesPerSec: BytesPerSec;
  /** Guest bytes per second that were really acknowledged. */
  readonly bandwidthBytesPerSec?: BytesPerSec | undefined;
}

interface Why {
  /** In words, never empty. */
  readonly why: string;
  /** If the guest stopped now. */
  readonly expectedDowntimeMs: Millis;
}

export type ConvergenceDecision =
  | ({ readonly action: 'continue' } & Why)
  | ({ readonly action: 'switchover' } & Why)
  | ({ readonly action: 'start-postcopy' } & Why)
  | ({ readonly action: 'throttle'; readonly percent: number } & Why)
  | ({ readonly action: 'abort' } & Why);

export interface ConvergenceState {
  readonly goals: Goals;
  readonly startedAt: Millis;
  readonly estimate: Estimate;
  /** Remaining bytes at the latest round ends since the last throttle step, oldest first. */
  readonly remaining: readonly number[];
  readonly rounds: number;
  readonly lastRoundEndAt: Millis;
  /**
   * What remained when there was progress last (a tenth less than the time before), counted from the last
   * throttle step, and how many rounds ago that was.
   */
  readonly least: number;
  readonly roundsSinceLeast: number;
  /** Rounds that were added although the guest could have been switched over. */
  readonly extraRounds: number;
  /** Rounds spent in a stall waiting for a local minimum. */
  readonly waitedRounds: number;
  /** CPU throttle, 0 to 99. Where the hypervisor throttles by itself, the steps that it was given time for. */
  readonly throttle: number;
  /** When it was last changed. */
  readonly throttledAt: Millis;
  /** Rounds that ended before a step of the throttle could show, and say nothing of it. */
  readonly settlingRounds: number;
  /** The final decision, once taken: it is repeated for every later event. */
  readonly final: ConvergenceDecision | null;
}

/** Round ends without progress that make a stall. */
const STALL_ROUNDS = 3;
/** Less than this share of improvement is none. */
const PROGRESS = 0.1;
/** Round ends that are kept. */
const WINDOW = 6;
/** This far above the window's least still counts as a minimum. */
const NEAR_LEAST = 1.15;
/** Rounds that a stalled guest is given to come down to a local minimum. */
const MAX_WAITED_ROUNDS = 3;
/** Rounds added for a lower downtime: how many, and what share of the time so far they may take. */
const MAX_EXTRA_ROUNDS = 8;
const EXTRA_SHARE = 0.25;
const EXTRA_FLOOR_MS = 2000;
/** A round pays if it saves this much downtime, and one millisecond of downtime for ten of its own. */
const WORTH_MS = 5;
const WORTH_SHARE = 0.1;
const MS_PER_MS = 10;
/** A round costs this much besides its transfer: the dirty log has to be read. */
const ROUND_COST_MS = 15;
/** Steps of the throttle, as auto-converge takes them. */
const FIRST_THROTTLE = 20;
const THROTTLE_STEP = 10;
const MAX_THROTTLE = 99;
/**
 * A step shows only after this long: QEMU looks at what was dirtied once a second at most, and throttles when it has
 * seen too much of it twice.
 */
const THROTTLE_SETTLES_MS = 2500;
/** Rounds that are given to all steps together to show. */
const MAX_SETTLING_ROUNDS = 360;
/** Rounds after which slow progress is called a stall, and after which nothing is waited for any more. */
const MANY_ROUNDS = 60;
const TOO_MANY_ROUNDS = 150;

export function startConvergence(goals: Goals, now: Millis, overheadMs?: number): ConvergenceState {
  return {
    goals,
    startedAt: now,
    estimate: newEstimate(overheadMs),
    remaining: [],
    rounds: 0,
    lastRoundEndAt: now,
    least: Number.POSITIVE_INFINITY,
    roundsSinceLeast: 0,
    extraRounds: 0,
    waitedRounds: 0,
    throttle: 0,
    throttledAt: now,
    settlingRounds: 0,
    final: null,
  };
}

/** One step: what to do now that this was seen. */
export function decide(
  state: ConvergenceState,
  event: ConvergenceEvent,
  now: Millis,
): { readonly state: ConvergenceState; readonly decision: ConvergenceDecision } {
  if (state.final !== null) return { state, decision: state.final };
  const observed: ConvergenceState = { ...state, estimate: observe(state.estimate, event, now) };
  return event.type === 'progress' ? onProgress(observed, event, now) : onRoundEnd(observed, event, now);
}

/** A new overhead, after the device state's time was measured or its size became known. */
export function withOverhead(state: ConvergenceState, overheadMs: number): ConvergenceState {
  return { ...state, estimate: { ...state.estimate, overheadMs } };
}

type Result = ReturnType<typeof decide>;

function onProgress(state: ConvergenceState, event: ConvergenceEvent, now: Millis): Result {
  // Pages dirtied since the last reading of the dirty log are not in `remainingBytes` yet.
  const unseen = (event.dirtyBytesPerSec * (now - state.lastRoundEndAt)) / 1000;
  const expected = predictDowntime(state.estimate, event.remainingBytes + unseen);
  if (pastDeadline(state, now)) return atDeadline(state, expected, now);
  const why = `Round ${event.round}: ${size(event.remainingBytes)} to send.`;
  return { state, decision: { action: 'continue', why, expectedDowntimeMs: expected } };
}

function onRoundEnd(before: ConvergenceState, event: ConvergenceEvent, now: Millis): Result {
  const state = recordRound(before, event.remainingBytes, now);
  const left = event.remainingBytes;
  const expected = predictDowntime(state.estimate, left);
  const { maxDowntimeMs, deadlineMs } = state.goals;
  if (pastDeadline(state, now)) return atDeadline(state, expected, now);
  if (expected <= maxDowntimeMs) {
    const nextRoundMs = transferMs(state.estimate, left) + ROUND_COST_MS;
    if (deadlineMs !== undefined && now + nextRoundMs > state.startedAt + deadlineMs) {
      return finish(
        state,
        'switchover',
        expected,
        `${fits(left, expected)}, and the deadline leaves no time for another round.`,
      );
    }
    return anotherRound(state, left, expected, now);
  }
  const slow = state.rounds >= MANY_ROUNDS && state.throttle === 0;
  if (state.roundsSinceLeast < STALL_ROUNDS && !slow && !tooMany(state)) {
    const why = `${tooLong(state, left, expected)}, but the remaining memory may still fall: round ${state.rounds + 1}.`;
    return { state, decision: { action: 'continue', why, expectedDowntimeMs: expected } };
  }
  return onStall(state, left, expected, now);
}

function tooMany({ rounds, settlingRounds }: ConvergenceState): boolean {
  return rounds - settlingRounds >= TOO_MANY_ROUNDS;
}

function recordRound(state: ConvergenceState, left: number, now: Millis): ConvergenceState {
  const better = left < state.least * (1 - PROGRESS);
  const settling =
    state.throttle > 0 &&
    now - state.throttledAt < THROTTLE_SETTLES_MS &&
    state.settlingRounds < MAX_SETTLING_ROUNDS;
  return {
    ...state,
    remaining: [...state.remaining, left].slice(-WINDOW),
    rounds: state.rounds + 1,
    lastRoundEndAt: now,
    least: better ? left : state.least,
    roundsSinceLeast: better ? 0 : state.roundsSinceLeast + (settling ? 0 : 1),
    settlingRounds: state.settlingRounds + (settling ? 1 : 0),
  };
}

/** The guest could be switched over within the limit: is a lower downtime cheap enough to go on? */
function anotherRound(state: ConvergenceState, left: number, expected: Millis, now: Millis): Result {
  const costMs = transferMs(state.estimate, left) + ROUND_COST_MS;
  const next = nextRemaining(state, left);
  const gainMs = expected - predictDowntime(state.estimate, next);
  const budgetMs = Math.max(EXTRA_FLOOR_MS, (now - state.startedAt) * EXTRA_SHARE);
  const pays =
    gainMs >= Math.max(WORTH_MS, expected * WORTH_SHARE) &&
    costMs <= gainMs * MS_PER_MS &&
    costMs <= budgetMs;
  if (pays && state.extraRounds < MAX_EXTRA_ROUNDS) {
    const why = `${fits(left, expected)}; one more round of about ${duration(costMs)} should save ${duration(gainMs)} of downtime.`;
    return {
      state: { ...state, extraRounds: state.extraRounds + 1 },
      decision: { action: 'continue', why, expectedDowntimeMs: expected },
    };
  }
  const reason = pays
    ? `${state.extraRounds} more rounds were spent on a lower downtime already`
    : `another round would save ${gainMs > 0 ? duration(gainMs) : 'nothing'}`;
  return finish(state, 'switchover', expected, `${fits(left, expected)}; ${reason}.`);
}

/**
 * What the next round end should find: what the dirty rate makes in the round's time, never more than
 * now. If the last rounds did not bear such a forecast out, their own course is believed instead; above a
 * recent minimum, that minimum is what can be hoped for.
 */
function nextRemaining(state: ConvergenceState, left: number): number {
  const roundMs = transferMs(state.estimate, left) + ROUND_COST_MS;
  const forecast = Math.min(left, (dirtyRateOf(state.estimate) * roundMs) / 1000);
  const previous = state.remaining.at(-2);
  if (previous === undefined || previous === 0) return forecast;
  const least = Math.min(...state.remaining);
  if (left > least * NEAR_LEAST) return Math.max(forecast, least);
  return Math.max(forecast, left * Math.min(1, left / previous));
}

function onStall(state: ConvergenceState, left: number, expected: Millis, now: Millis): Result {
  const { onStall: means } = state.goals;
  const least = Math.min(...state.remaining);
  if (
    means !== 'throttle' &&
    means !== 'abort' &&
    left > least * NEAR_LEAST &&
    state.waitedRounds < MAX_WAITED_ROUNDS &&
    !tooMany(state)
  ) {
    const why = `${stalled(state)}; ${size(left)} remain and ${size(least)} did before: waiting for a minimum.`;
    return {
      state: { ...state, waitedRounds: state.waitedRounds + 1 },
      decision: { action: 'continue', why, expectedDowntimeMs: expected },
    };
  }
  const why = `${stalled(state)}; ${tooLong(state, left, expected)}`;
  switch (means) {
    case 'postcopy':
      return finish(state, 'start-postcopy', expected, `${why}. The rest follows by post-copy.`);
    case 'stop':
      return finish(
        state,
        'switchover',
        expected,
        `${why}. The operator allows a longer downtime in a stall.`,
      );
    case 'abort':
      return finish(state, 'abort', expected, `${why}. The operator wants no other means to be taken.`);
    case 'throttle':
      if (state.throttle >= MAX_THROTTLE || tooMany(state)) {
        const last = state.goals.throttlesItself
          ? "although the hypervisor was given time to throttle the guest's CPUs by itself"
          : `although the guest's CPUs are throttled by ${state.throttle} %`;
        return finish(state, 'abort', expected, `${why}, ${last}. No other means is left.`);
      }
      return throttleMore(state, expected, why, now);
  }
}

function throttleMore(state: ConvergenceState, expected: Millis, why: string, now: Millis): Result {
  const percent =
    state.throttle === 0 ? FIRST_THROTTLE : Math.min(MAX_THROTTLE, state.throttle + THROTTLE_STEP);
  // The guest is another one now: its rounds are judged afresh, starting one round short of a stall.
  const slowed: ConvergenceState = {
    ...state,
    throttle: percent,
    throttledAt: now,
    remaining: state.remaining.slice(-1),
    least: state.remaining.at(-1) ?? state.least,
    roundsSinceLeast: 1,
  };
  if (state.goals.throttlesItself) {
    const own = `${why}. The hypervisor slows the guest's CPUs by itself, by as much as it chooses, and is given time for it.`;
    return { state: slowed, decision: { action: 'continue', why: own, expectedDowntimeMs: expected } };
  }
  return {
    state: slowed,
    decision: {
      action: 'throttle',
      percent,
      why: `${why}. The guest's CPUs are slowed by ${percent} %.`,
      expectedDowntimeMs: expected,
    },
  };
}

function atDeadline(state: ConvergenceState, expected: Millis, now: Millis): Result {
  const { maxDowntimeMs, onStall: means } = state.goals;
  const why = `The deadline is over after ${duration(now - state.startedAt)}`;
  const longer = `a switchover would take ${duration(expected)}, more than the ${duration(maxDowntimeMs)} allowed`;
  if (expected <= maxDowntimeMs) {
    return finish(
      state,
      'switchover',
      expected,
      `${why}, and a switchover should take ${duration(expected)}.`,
    );
  }
  switch (means) {
    case 'postcopy':
      return finish(
        state,
        'start-postcopy',
        expected,
        `${why} and ${longer}. The rest follows by post-copy.`,
      );
    case 'stop':
      return finish(
        state,
        'switchover',
        expected,
        `${why} and ${longer}. The operator allows a longer downtime.`,
      );
    case 'throttle':
      return finish(state, 'abort', expected, `${why} and ${longer}. There is no time left for throttling.`);
    case 'abort':
      return finish(state, 'abort', expected, `${why} and ${longer}.`);
  }
}

function finish(
  state: ConvergenceState,
  action: 'switchover' | 'start-postcopy' | 'abort',
  expectedDowntimeMs: Millis,
  why: string,
): Result {
  const decision: ConvergenceDecision = { action, why, expectedDowntimeMs };
  return { state: { ...state, final: decision }, decision };
}

function pastDeadline(state: ConvergenceState, now: Millis): boolean {
  const { deadlineMs } = state.goals;
  return deadlineMs !== undefined && now - state.startedAt >= deadlineMs;
}

function fits(left: number, expected: Millis): string {
  return `${size(left)} remain, a downtime of about ${duration(expected)}`;
}

function tooLong(state: ConvergenceState, left: number, expected: Millis): string {
  return `${size(left)} remain, a downtime of about ${duration(expected)}, more than the ${duration(state.goals.maxDowntimeMs)} allowed`;
}

function stalled(state: ConvergenceState): string {
  const dirty = rate(dirtyRateOf(state.estimate));
  if (state.roundsSinceLeast < STALL_ROUNDS)
    return `After ${state.rounds} rounds it converges too slowly (${dirty} dirtied)`;
  return `For ${state.roundsSinceLeast} rounds the remaining memory has not fallen much below ${size(state.least)} (${dirty} dirtied)`;
}

/** The downtime aimed for: what the last round end promised, never more than the limit. */
export function aimedDowntimeMs(state: ConvergenceState): Millis {
  const last = state.remaining.at(-1);
  if (last === undefined) return millis(state.goals.maxDowntimeMs);
  return millis(
    Math.min(state.goals.maxDowntimeMs, predictDowntime(state.estimate, nextRemaining(state, last))),
  );
}
