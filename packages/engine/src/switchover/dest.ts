/**
 * The destination's half of the two-phase commit.
 *
 *     receiving ──SEALED and guest loaded──▶ voting ──(ready is on disk)──▶ ready ── READY ─▶
 *        │                                     │                             │        │
 *        │ any failure, DISCARD                │ any failure, DISCARD        │        │ COMMIT
 *        ▼                                     ▼          DISCARD, guest gone│        ▼
 *     discarding ◀─────────────────────────────┴─────────────────────────────┘     accepting
 *        │ guest ended, (discarded is on disk)                                        │ (run is on disk)
 *        ▼                                                                            ▼
 *     discarded ── DISCARDED ─▶                                                    starting ─▶ guest runs
 *                                                                                     │
 *                         done ◀── COMPLETE ─ closing ◀──no page missing── running ◀──┘ ── RUNNING ─▶
 *
 * In `ready` only the source's word counts: a lost link, a timeout or a restart keeps the guest paused. Post-copy that is
 * final is another thing: its source can never run the guest again, whatever it has decided. Once loaded the guest can run
 * only here, so where the source is lost or gives up, the guest is run as if COMMIT had come, to be finished later.
 */
import type { ByHand } from '../by-hand.ts';
import type { GuestRunsOn } from '../errors.ts';
import { type JournalRecord, modeOf } from '../journal/records.ts';
import { type Millis, millis } from '../units.ts';
import type { DestAction, DestBase, DestEventIn, DestLimits, DestState } from './dest-state.ts';
import type { Failure, Step, SwitchoverMode, ToSource } from './protocol.ts';
import { DEST_ENDED, destRemedy } from './remedies.ts';
import {
  failureOf,
  journal,
  note,
  type OwnOf,
  report,
  reportGivenUp,
  reportMoved,
  send,
  stay,
} from './steps.ts';

type DestStep = Step<DestState, DestAction>;

const READY = send<ToSource>({ type: 'ready' });

export function startDest(mode: SwitchoverMode, limits: DestLimits, now: Millis, hands?: ByHand): DestStep {
  const words = hands === undefined ? {} : { hands };
  const base: DestBase = { mode, final: false, limits, ...words, since: now, told: null };
  return {
    state: { ...base, phase: 'receiving', sealedAt: null, loaded: false },
    actions: [journal('started')],
  };
}

/** Pre-copy turns into post-copy (hybrid). Only before the guest is loaded. */
export function destToPostcopy(state: DestState, { final }: { readonly final: boolean }): DestState {
  return state.phase === 'receiving' ? { ...state, mode: 'postcopy', final } : state;
}

/** Takes a migration up after the agent was restarted. */
export function recoverDest(records: readonly JournalRecord[], limits: DestLimits, now: Millis): DestStep {
  const base: DestBase = { mode: modeOf(records), final: false, limits, since: now, told: null };
  const last = records.at(-1);
  const cause: Failure = {
    code: 'E_INTERNAL',
    why: 'The destination agent was restarted before the guest was loaded.',
  };
  switch (last?.state) {
    case 'ready':
      return { state: { ...base, phase: 'ready' }, actions: [READY] };
    case 'run':
      return {
        state: { ...base, phase: 'starting', complete: false, lost: null },
        actions: [{ type: 'run-guest' }],
      };
    case 'done':
      return { state: { ...base, phase: 'done', ranAt: millis(last.at) }, actions: [] };
    case 'discarded':
      return { state: { ...base, phase: 'discarded', cause }, actions: [discarded(cause)] };
    default:
      return discardGuest({ ...base, phase: 'voting' }, cause, now);
  }
}

/** When a `tick` is due, if at all. */
export function destDeadline(state: DestState): Millis | undefined {
  if (state.phase === 'receiving' && state.sealedAt !== null) {
    return millis(state.sealedAt + state.limits.loadMs);
  }
  if (state.phase === 'ready' && state.told === null) return millis(state.since + state.limits.outcomeMs);
  return undefined;
}

/** One step of the machine. Events that mean nothing in a phase change nothing. */
export function stepDest(state: DestState, event: DestEventIn, now: Millis): DestStep {
  switch (state.phase) {
    case 'receiving':
    case 'voting':
      return beforeReady(state, event, now);
    case 'ready':
      return inDoubt(state, event, now);
    case 'accepting':
    case 'starting':
      return starting(state, event, now);
    case 'running':
    case 'closing':
    case 'done':
      return running(state, event, now);
    case 'discarding':
    case 'discarded':
      return discarding(state, event, now);
  }
}

type Phase<Name extends DestState['phase']> = Extract<DestState, { phase: Name }>;

function beforeReady(state: Phase<'receiving' | 'voting'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'message':
      if (event.message.type === 'discard') {
        return giveUp(state, { code: 'E_GUEST_FAILED', why: event.message.why }, now);
      }
      if (event.message.type === 'sealed' && state.phase === 'receiving') {
        return tryVote({ ...state, sealedAt: state.sealedAt ?? now }, now);
      }
      return stay(state);
    case 'guest-loaded':
      return state.phase === 'receiving' ? tryVote({ ...state, loaded: true }, now) : stay(state);
    case 'journal-written':
      return state.phase === 'voting' && event.record === 'ready'
        ? enter(state, now, { phase: 'ready' }, READY)
        : stay(state);
    case 'journal-failed': {
      const why = 'The destination could not write its journal.';
      return discardGuest(state, { code: 'E_JOURNAL', why }, now);
    }
    case 'guest-gone':
      return discardGuest(state, event, now);
    case 'link-lost':
    case 'failed':
      return giveUp(state, event, now);
    case 'cancel': {
      const why = 'The migration was cancelled on the destination.';
      return giveUp(state, { code: 'E_CANCELLED', why }, now);
    }
    case 'tick': {
      if (state.phase !== 'receiving' || state.sealedAt === null) return stay(state);
      if (now < state.sealedAt + state.limits.loadMs) return stay(state);
      const why = `The guest was not loaded within ${state.limits.loadMs} ms.`;
      return discardGuest(state, { code: 'E_TIMEOUT', why }, now);
    }
    default:
      return stay(state);
  }
}

/** The source will not have it here, or cannot be heard. */
function giveUp(state: Phase<'receiving' | 'voting' | 'ready'>, cause: Failure, now: Millis): DestStep {
  const loaded = state.phase !== 'receiving' || state.loaded;
  return state.final && loaded ? accept(state, failureOf(cause), now) : discardGuest(state, cause, now);
}

function accept(state: DestState, lost: Failure | null, now: Millis): DestStep {
  return enter({ ...state, told: null }, now, { phase: 'accepting', complete: false, lost }, journal('run'));
}

function tryVote(state: Phase<'receiving'>, now: Millis): DestStep {
  if (state.sealedAt === null || !state.loaded) return stay(state);
  return enter(state, now, { phase: 'voting' }, journal('ready'));
}

function inDoubt(state: Phase<'ready'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'message':
      switch (event.message.type) {
        case 'commit':
          return accept(state, null, now);
        case 'discard':
          return giveUp(state, { code: 'E_GUEST_FAILED', why: event.message.why }, now);
        case 'sealed':
          return stay(state, READY);
      }
      break;
    case 'linked':
    case 'retry':
      return stay({ ...state, since: now, told: null }, READY);
    case 'guest-gone':
      return discardGuest(state, event, now);
    case 'link-lost':
      return state.final ? accept(state, failureOf(event), now) : attention(state, 'unknown', event);
    case 'failed':
      return attention(state, 'unknown', event);
    case 'tick': {
      if (now < state.since + state.limits.outcomeMs) return stay(state);
      const why = `The source has not said within ${state.limits.outcomeMs} ms whether the guest may run here.`;
      return attention(state, 'unknown', { code: 'E_TIMEOUT', why });
    }
    case 'cancel':
      return stay(state, note('The destination is ready: only the source can cancel now.'));
  }
  return stay(state);
}

function starting(state: Phase<'accepting' | 'starting'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'journal-written': {
      if (state.phase !== 'accepting' || event.record !== 'run') return stay(state);
      const { complete, lost } = state;
      return enter(
        { ...state, told: null },
        now,
        { phase: 'starting', complete, lost },
        { type: 'run-guest' },
      );
    }
    case 'journal-failed':
      // A guest that ran without a record could be discarded, after a restart, by an old message.
      if (state.phase !== 'accepting' || event.record !== 'run') return stay(state);
      return runFailed(state, {
        code: 'E_JOURNAL',
        why: 'The guest is committed to the destination, which cannot write its journal and so does not run it yet.',
      });
    case 'guest-complete':
      return stay({ ...state, complete: true });
    case 'guest-running':
      return state.phase === 'starting' ? runs(state, event.atMs, now) : stay(state);
    case 'run-failed':
    case 'guest-gone':
      return runFailed(state, event);
    case 'link-lost':
    case 'failed':
      return stay({ ...state, lost: state.lost ?? failureOf(event) });
    case 'linked':
      return stay({ ...state, lost: null });
    case 'retry':
      return stay(
        { ...state, told: null },
        state.phase === 'starting' ? { type: 'run-guest' } : journal('run'),
      );
    case 'message':
      return event.message.type === 'discard' ? brokenPeer(state, 'neither') : stay(state);
    default:
      return stay(state);
  }
}

function runs(state: Phase<'starting'>, ranAt: Millis, now: Millis): DestStep {
  const news: DestAction[] = [send({ type: 'running', atMs: ranAt }), { type: 'announce' }];
  const untold = { ...state, told: null };
  if (state.complete) return enter(untold, now, { phase: 'closing', ranAt }, ...news, journal('done'));
  const ran = enter(untold, now, { phase: 'running', ranAt }, ...news);
  if (state.mode === 'precopy' || state.lost === null) return ran;
  const told = attention(ran.state, 'dest', state.lost);
  return stay(told.state, ...news, ...told.actions);
}

function runFailed(state: Phase<'accepting' | 'starting'>, { code, why }: Failure): DestStep {
  const told = attention(state, 'neither', { code, why });
  return stay(told.state, send({ type: 'run-failed', code, why }), ...told.actions);
}

function running(state: Phase<'running' | 'closing' | 'done'>, event: DestEventIn, now: Millis): DestStep {
  const { ranAt } = state;
  switch (event.type) {
    case 'guest-complete':
      return state.phase === 'running'
        ? enter(state, now, { phase: 'closing', ranAt }, journal('done'))
        : stay(state);
    case 'journal-written':
    case 'journal-failed':
      return state.phase === 'closing' && event.record === 'done'
        ? enter(state, now, { phase: 'done', ranAt }, send({ type: 'complete' }), reportMoved())
        : stay(state);
    case 'linked':
      return stay({ ...state, told: null }, ...standing(state));
    case 'message':
      return event.message.type === 'discard' ? brokenPeer(state, 'dest') : stay(state, ...standing(state));
    case 'link-lost':
    case 'failed':
      return state.phase === 'running' ? attention(state, 'dest', event) : stay(state);
    case 'guest-gone':
      return state.phase === 'running' ? attention(state, 'neither', event, DEST_ENDED) : stay(state);
    default:
      return stay(state);
  }
}

/** What a source that has forgotten has to be told. */
function standing(state: Phase<'running' | 'closing' | 'done'>): DestAction[] {
  const actions: DestAction[] = [send({ type: 'running', atMs: state.ranAt })];
  if (state.phase === 'done') actions.push(send({ type: 'complete' }));
  return actions;
}

function discarding(state: Phase<'discarding' | 'discarded'>, event: DestEventIn, now: Millis): DestStep {
  const { cause } = state;
  switch (event.type) {
    case 'guest-discarded':
      return state.phase === 'discarding' ? stay(state, journal('discarded')) : stay(state);
    case 'discard-failed':
      if (state.phase !== 'discarding') return stay(state);
      return attention({ ...state, stuck: true }, 'unknown', {
        code: event.code,
        why: `The guest could not be ended on the destination: ${event.why}`,
      });
    case 'retry':
      return state.phase === 'discarding' && state.stuck
        ? stay({ ...state, stuck: false, told: null }, { type: 'discard-guest' })
        : stay(state);
    case 'journal-written':
    case 'journal-failed': {
      // The guest is gone for good, on disk or not: a restart finds nothing that could run.
      if (state.phase !== 'discarding' || event.record !== 'discarded') return stay(state);
      const remedy = 'Nothing is left on the destination; the source tells where the guest runs.';
      return enter(
        state,
        now,
        { phase: 'discarded', cause },
        discarded(cause),
        reportGivenUp(cause, 'unknown', remedy),
      );
    }
    case 'linked':
    case 'message':
      return state.phase === 'discarded' ? stay(state, discarded(cause)) : stay(state);
    default:
      return stay(state);
  }
}

function discardGuest(state: DestState, failure: Failure, now: Millis): DestStep {
  const cause = failureOf(failure);
  return enter(
    { ...state, told: null },
    now,
    { phase: 'discarding', cause, stuck: false },
    { type: 'discard-guest' },
  );
}

/** After its commit the source can no longer take the guest back, whatever it says. */
function brokenPeer(state: DestState, guestRunsOn: GuestRunsOn): DestStep {
  return attention(state, guestRunsOn, {
    code: 'E_PROTOCOL',
    why: 'The source asked to discard a guest that it had committed. The guest was kept.',
  });
}

function attention(
  state: DestState,
  guestRunsOn: GuestRunsOn,
  { code, why }: Failure,
  remedy = destRemedy(state),
): DestStep {
  if (state.told === why) return stay(state);
  return stay({ ...state, told: why }, report('attention', code, why, guestRunsOn, remedy));
}

/** Into another phase, which begins now. */
function enter(
  state: DestState,
  now: Millis,
  own: OwnOf<DestState, DestBase>,
  ...actions: DestAction[]
): DestStep {
  const { mode, final, limits, hands, told } = state;
  const words = hands === undefined ? {} : { hands };
  return { state: { mode, final, limits, ...words, since: now, told, ...own }, actions };
}

function discarded({ why }: Failure): DestAction {
  return send({ type: 'discarded', why });
}
