/**
 * The source's half of the two-phase commit.
 *
 *     copying ──state-complete──▶ sealing ──(sealed is on disk)──▶ sealed ── SEALED ─▶
 *        │                          │                                │
 *        │                          │                 READY, and in pre-copy the stream's end
 *        │ any failure              │ any failure                    ▼
 *        │                          │    any failure             committing ──(disk fails)──▶ uncommitting
 *        │                          │ ◀──────────────────── sealed   │ ──(its hypervisor fails)───▶│
 *        ▼                          ▼                       (committed is on disk)    rolling-back on disk
 *     rolling-back ◀────────────────┴─────────────────────────────── │ ─────────────── or DISCARDED
 *        │ DISCARD ─▶, guest runs on the source                      ▼
 *        ▼                                                       committed ── COMMIT ─▶
 *     rolled-back                                                    │ RUNNING
 *                                         lost ◀─DISCARDED─          ▼
 *                                                               finishing (post-copy: pages travel)
 *                                                                    │ COMPLETE
 *                                                                    ▼
 *                                                             closing ─▶ done
 *
 * Before `committed` is on disk every failure rolls back. From `committing` on the guest never runs here
 * by itself: a lost link, a crash or a timeout only calls for attention, and the outcome is told to the
 * destination whenever it can be heard. A hypervisor that fails in `committing` may have let its guest run again
 * already (libvirt does, when it hangs up): then the commit is not said. In post-copy a destination that is slow to run the guest, or cannot,
 * still needs the rest of its memory: the operator is told at once, but the report waits until all was sent. In `uncommitting` the commit may or may not be on disk but was
 * never said, so a roll-back waits for proof: its own record, or the destination's word that it discarded.
 */
import { type GuestRunsOn, sentences } from '../errors.ts';
import { type JournalRecord, modeOf } from '../journal/records.ts';
import { type Millis, millis } from '../units.ts';
import type { Failure, Step, SwitchoverMode, ToDest, ToSource } from './protocol.ts';
import { guestEndedThere, memoryLost, sourceRemedy } from './remedies.ts';
import type {
  Overdue,
  SourceAction,
  SourceBase,
  SourceEvent,
  SourceHands,
  SourceLimits,
  SourceState,
} from './source-state.ts';
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

type SourceStep = Step<SourceState, SourceAction>;

const CANCELLED: Failure = { code: 'E_CANCELLED', why: 'The migration was cancelled.' };
const SEALED = send<ToDest>({ type: 'sealed' });
const COMMIT = send<ToDest>({ type: 'commit' });

export function startSource(
  mode: SwitchoverMode,
  limits: SourceLimits,
  now: Millis,
  hands?: SourceHands,
): SourceStep {
  const words = hands === undefined ? {} : { hands };
  return {
    state: { phase: 'copying', mode, limits, ...words, ended: false, since: now, told: null },
    actions: [journal('started')],
  };
}

/** Pre-copy turns into post-copy (hybrid). Only before SEALED. */
export function sourceToPostcopy(state: SourceState): SourceState {
  return state.phase === 'copying' ? { ...state, mode: 'postcopy' } : state;
}

/** Takes a migration up after the agent was restarted. The stream to the hypervisor did not survive that. */
export function recoverSource(
  records: readonly JournalRecord[],
  limits: SourceLimits,
  now: Millis,
): SourceStep {
  const base: SourceBase = { mode: modeOf(records), limits, ended: true, since: now, told: null };
  const cause: Failure = { code: 'E_INTERNAL', why: 'The source agent was restarted before the commit.' };
  switch (records.at(-1)?.state) {
    case 'committed':
      return { state: { ...base, phase: 'committed', overdue: null }, actions: [COMMIT] };
    case 'done':
      return { state: { ...base, phase: 'done' }, actions: [] };
    case 'rolled-back':
      return { state: { ...base, phase: 'rolled-back', cause }, actions: [discard(cause)] };
    default:
      return rollBack({ ...base, phase: 'copying' }, cause, now);
  }
}

/** When a `tick` is due, if at all. */
export function sourceDeadline(state: SourceState): Millis | undefined {
  if (state.told !== null) return undefined;
  if (state.phase === 'sealed') return millis(state.since + state.limits.readyMs);
  if (state.phase === 'committed' && state.overdue === null)
    return millis(state.since + state.limits.runningMs);
  return undefined;
}

/** One step of the machine. Events that mean nothing in a phase change nothing. */
export function stepSource(state: SourceState, event: SourceEvent, now: Millis): SourceStep {
  switch (state.phase) {
    case 'copying':
    case 'sealing':
    case 'sealed':
      return beforeCommit(state, event, now);
    case 'committing':
      return committing(state, event, now);
    case 'uncommitting':
      return uncommitting(state, event, now);
    case 'committed':
    case 'finishing':
    case 'closing':
    case 'done':
    case 'lost':
      return afterCommit(state, event, now);
    case 'rolling-back':
    case 'rolled-back':
      return rollingBack(state, event, now);
  }
}

type Phase<Name extends SourceState['phase']> = Extract<SourceState, { phase: Name }>;

function beforeCommit(
  state: Phase<'copying' | 'sealing' | 'sealed'>,
  event: SourceEvent,
  now: Millis,
): SourceStep {
  switch (event.type) {
    case 'state-complete':
      return state.phase === 'copying'
        ? enter(state, now, { phase: 'sealing' }, journal('sealed'))
        : stay(state);
    case 'journal-written':
      return state.phase === 'sealing' && event.record === 'sealed'
        ? enter(state, now, { phase: 'sealed', ready: false }, SEALED)
        : stay(state);
    case 'journal-failed':
      return rollBack(state, { code: 'E_JOURNAL', why: 'The source could not write its journal.' }, now);
    case 'stream-end':
      return tryCommit({ ...state, ended: true }, now);
    case 'message':
      if (event.message.type === 'ready' && state.phase === 'sealed') {
        return tryCommit({ ...state, ready: true }, now);
      }
      if (event.message.type === 'discarded') {
        return rollBack(state, { code: 'E_GUEST_FAILED', why: event.message.why }, now);
      }
      return stay(state);
    case 'linked':
      return state.phase === 'sealed' ? stay(state, SEALED) : stay(state);
    case 'guest-gone':
    case 'link-lost':
    case 'failed':
      if (state.phase === 'sealed' && isDispensable(state, event)) return stay(state);
      return rollBack(state, event, now);
    case 'cancel':
      return rollBack(state, CANCELLED, now);
    case 'tick': {
      if (state.phase !== 'sealed' || now < state.since + state.limits.readyMs) return stay(state);
      const why = `The destination was not ready ${state.limits.readyMs} ms after the guest was sent.`;
      return rollBack(state, { code: 'E_TIMEOUT', why }, now);
    }
    default:
      return stay(state);
  }
}

/** A destination that is ready is committed to as soon as the source's hypervisor has let go. */
function tryCommit(state: Phase<'copying' | 'sealing' | 'sealed'>, now: Millis): SourceStep {
  if (state.phase !== 'sealed' || !state.ready) return stay(state);
  if (state.mode === 'precopy' && !state.ended) return stay(state);
  return enter(state, now, { phase: 'committing' }, journal('committed'));
}

function committing(state: Phase<'committing'>, event: SourceEvent, now: Millis): SourceStep {
  switch (event.type) {
    case 'stream-end':
      return stay({ ...state, ended: true });
    case 'journal-written':
      return event.record === 'committed'
        ? enter(state, now, { phase: 'committed', overdue: null }, COMMIT)
        : stay(state);
    case 'journal-failed': {
      if (event.record !== 'committed') return stay(state);
      const why = 'The source could not write the commit to its journal.';
      return uncommit(state, { code: 'E_JOURNAL', why }, now);
    }
    case 'failed':
    case 'guest-gone':
      return isDispensable(state, event) ? stay(state) : uncommit(state, event, now);
    case 'cancel':
      return tooLate(state);
    default:
      return stay(state);
  }
}

/** The commit was never said, whatever the disk has of it. */
function uncommit(state: SourceState, failure: Failure, now: Millis): SourceStep {
  const cause = failureOf(failure);
  return enter(state, now, { phase: 'uncommitting', cause }, discard(cause), journal('rolling-back'));
}

function uncommitting(state: Phase<'uncommitting'>, event: SourceEvent, now: Millis): SourceStep {
  switch (event.type) {
    case 'stream-end':
      return stay({ ...state, ended: true });
    case 'journal-written':
      return event.record === 'rolling-back' ? rollBack(state, state.cause, now) : stay(state);
    case 'journal-failed':
      if (event.record !== 'rolling-back') return stay(state);
      return attention(state, 'neither', {
        code: 'E_JOURNAL',
        why: 'The source cannot write its journal and waits for the destination to confirm that it discarded the guest.',
      });
    case 'message':
      return event.message.type === 'discarded'
        ? rollBack(state, state.cause, now)
        : stay(state, discard(state.cause));
    case 'linked':
      return stay(state, discard(state.cause));
    case 'retry':
      return stay(state, discard(state.cause), journal('rolling-back'));
    case 'cancel':
      return tooLate(state);
    default:
      return stay(state);
  }
}

function isUnfinished({ phase }: SourceState): boolean {
  return phase === 'committed' || phase === 'finishing';
}

/** In pre-copy a source whose stream has ended is not needed any more; the destination may have it all. */
function isDispensable(state: SourceState, event: SourceEvent): boolean {
  return event.type === 'guest-gone' && state.ended && state.mode === 'precopy';
}

function afterCommit(
  state: Phase<'committed' | 'finishing' | 'closing' | 'done' | 'lost'>,
  event: SourceEvent,
  now: Millis,
): SourceStep {
  switch (event.type) {
    case 'stream-end': {
      const ended = { ...state, ended: true };
      return ended.phase === 'committed' && ended.overdue ? late(ended, ended.overdue) : stay(ended);
    }
    case 'message':
      return messageAfterCommit(state, event.message, now);
    case 'linked':
      if (state.phase === 'committed') {
        return stay({ ...state, told: null, since: now, overdue: null }, COMMIT);
      }
      return state.phase === 'finishing' ? stay({ ...state, told: null, since: now }, COMMIT) : stay(state);
    case 'journal-written':
      if (state.phase === 'closing' && event.record === 'done') return done(state, now);
      if (state.phase === 'lost' && event.record === 'rolling-back') return rollBack(state, state.cause, now);
      return stay(state);
    case 'journal-failed':
      if (state.phase !== 'closing' || event.record !== 'done') return stay(state);
      return done(state, now, note('The source could not write the end of the migration to its journal.'));
    case 'guest-gone':
      if (state.mode === 'precopy' || (state.phase !== 'committed' && state.phase !== 'finishing')) {
        return stay(state);
      }
      return attention(
        state,
        state.phase === 'finishing' ? 'dest' : 'unknown',
        {
          code: 'E_GUEST_GONE',
          why: `The source's hypervisor is gone and with it the memory that had not been sent: ${event.why}`,
        },
        memoryLost(state),
      );
    case 'link-lost':
    case 'failed':
      if (event.code === 'E_GUEST_GONE' && state.mode === 'postcopy' && isUnfinished(state)) {
        return attention(state, 'neither', event, guestEndedThere(state));
      }
      if (state.phase === 'committed') return attention(state, 'unknown', event);
      return state.phase === 'finishing' ? attention(state, 'dest', event) : stay(state);
    case 'tick': {
      if (state.phase !== 'committed' || now < state.since + state.limits.runningMs) return stay(state);
      const why = `The destination has not said within ${state.limits.runningMs} ms that it runs the guest.`;
      return late(state, { code: 'E_TIMEOUT', why, guestRunsOn: 'unknown' });
    }
    case 'retry':
      if (state.phase === 'lost') return stay(state, journal('rolling-back'));
      return state.phase === 'committed' || state.phase === 'finishing' ? stay(state, COMMIT) : stay(state);
    case 'cancel':
      return tooLate(state);
    default:
      return stay(state);
  }
}

function messageAfterCommit(
  state: Phase<'committed' | 'finishing' | 'closing' | 'done' | 'lost'>,
  message: ToSource,
  now: Millis,
): SourceStep {
  if (state.phase === 'closing' || state.phase === 'done') return stay(state);
  switch (message.type) {
    case 'ready':
      return state.phase === 'lost' ? stay(state) : stay(state, COMMIT);
    case 'running':
      if (state.phase !== 'committed') return stay(state);
      return state.mode === 'postcopy'
        ? enter({ ...state, told: null }, now, { phase: 'finishing' })
        : enter(state, now, { phase: 'closing' }, journal('done'));
    case 'complete':
      return state.phase === 'lost' ? stay(state) : enter(state, now, { phase: 'closing' }, journal('done'));
    case 'run-failed':
      return state.phase === 'committed'
        ? late(state, { code: message.code, why: message.why, guestRunsOn: 'neither' })
        : stay(state);
    case 'discarded': {
      if (state.phase !== 'committed') return stay(state);
      const cause: Failure = { code: 'E_GUEST_GONE', why: message.why };
      return attention(enter(state, now, { phase: 'lost', cause }).state, 'neither', {
        code: cause.code,
        why: `The guest was committed to the destination, which lost it before it ran: ${cause.why}`,
      });
    }
  }
}

function done(state: Phase<'closing'>, now: Millis, ...notes: SourceAction[]): SourceStep {
  return enter(state, now, { phase: 'done' }, ...notes, { type: 'forget' }, reportMoved());
}

function rollingBack(
  state: Phase<'rolling-back' | 'rolled-back'>,
  event: SourceEvent,
  now: Millis,
): SourceStep {
  switch (event.type) {
    case 'rolled-back': {
      if (state.phase !== 'rolling-back') return stay(state);
      const { cause = state.cause } = event;
      const remedy =
        'The guest runs on the source as before; remove the cause and start the migration again.';
      return enter(
        state,
        now,
        { phase: 'rolled-back', cause },
        reportGivenUp(cause, 'source', remedy),
        journal('rolled-back'),
      );
    }
    case 'rollback-failed':
      if (state.phase !== 'rolling-back') return stay(state);
      return attention({ ...state, stuck: true }, 'unknown', {
        code: event.code,
        why: sentences(state.cause.why, `The guest could not be resumed on the source: ${event.why}`),
      });
    case 'retry':
      return state.phase === 'rolling-back' && state.stuck
        ? stay({ ...state, stuck: false, told: null }, { type: 'rollback' })
        : stay(state);
    case 'linked':
      return stay(state, discard(state.cause));
    case 'message':
      return event.message.type === 'ready' ? stay(state, discard(state.cause)) : stay(state);
    case 'journal-failed':
      return stay(state, note('The source could not write the roll-back to its journal.'));
    default:
      return stay(state);
  }
}

function rollBack(state: SourceState, failure: Failure, now: Millis): SourceStep {
  const cause = failureOf(failure);
  return enter(
    { ...state, told: null },
    now,
    { phase: 'rolling-back', cause, stuck: false },
    discard(cause),
    { type: 'rollback' },
  );
}

function attention(
  state: SourceState,
  guestRunsOn: GuestRunsOn,
  { code, why }: Failure,
  remedy = sourceRemedy(state),
): SourceStep {
  if (state.told === why) return stay(state);
  return stay({ ...state, told: why }, report('attention', code, why, guestRunsOn, remedy));
}

/** The guest does not run where it belongs. As long as memory of it is here, sending that is the remedy. */
function late(state: Phase<'committed'>, overdue: Overdue): SourceStep {
  if (state.ended) return attention(state, overdue.guestRunsOn, overdue);
  if (state.overdue?.why === overdue.why) return stay(state);
  const goesOn = 'The source goes on sending the rest of its memory, and does not run it.';
  return stay({ ...state, overdue }, note(sentences(overdue.why, goesOn)));
}

function tooLate(state: SourceState): SourceStep {
  return stay(
    state,
    note('The migration can no longer be cancelled: the guest is committed to the destination.'),
  );
}

/** Into another phase, which begins now. */
function enter(
  state: SourceState,
  now: Millis,
  own: OwnOf<SourceState, SourceBase>,
  ...actions: SourceAction[]
): SourceStep {
  const { mode, limits, hands, ended, told } = state;
  const words = hands === undefined ? {} : { hands };
  return { state: { mode, limits, ...words, ended, since: now, told, ...own }, actions };
}

function discard({ why }: Failure): SourceAction {
  return send({ type: 'discard', why });
}
