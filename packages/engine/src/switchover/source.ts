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
import { type ByHand, QEMU_BY_HAND } from '../by-hand.ts';
import type { GuestRunsOn } from '../errors.ts';
import { type JournalRecord, modeOf, type SourceRecordState } from '../journal/records.ts';
import { type Millis, millis } from '../units.ts';
import {
  type Failure,
  report,
  type Step,
  type SwitchoverEvent,
  type SwitchoverMode,
  type SwitchoverNote,
  type SwitchoverReport,
  type ToDest,
  type ToSource,
} from './protocol.ts';

export interface SourceLimits {
  /** From SEALED to READY. */
  readonly readyMs: number;
  /** From COMMIT to RUNNING, after which the operator is told. */
  readonly runningMs: number;
}

/** Of the guest on either host. */
export interface SourceHands {
  readonly here: ByHand;
  readonly there: ByHand;
}

interface Base {
  readonly mode: SwitchoverMode;
  readonly limits: SourceLimits;
  /** Left out: QEMU's, on both hosts. */
  readonly hands?: SourceHands;
  /** The hypervisor's stream is over. */
  readonly ended: boolean;
  /** When this phase began. */
  readonly since: Millis;
  /** What the operator was last told that needs them, so that it is said once. */
  readonly told: string | null;
}

/** Distributes over the phases' names, so that each phase is a member of the union by itself. */
type In<Name extends string, Own = unknown> = Name extends string
  ? Base & { readonly phase: Name } & Own
  : never;

interface Overdue extends Failure {
  readonly guestRunsOn: GuestRunsOn;
}

export type SourceState =
  | In<'copying' | 'sealing' | 'committing' | 'finishing' | 'closing' | 'done'>
  /** `overdue`: what the report will say when all is sent, should the guest not run by then. */
  | In<'committed', { readonly overdue: Overdue | null }>
  | In<'sealed', { readonly ready: boolean }>
  | In<'uncommitting' | 'rolled-back', { readonly cause: Failure }>
  /** `stuck`: the hypervisor refused; `retry` tries again. */
  | In<'rolling-back', { readonly cause: Failure; readonly stuck: boolean }>
  /** Committed, and the destination's guest is gone before it ever ran. Only an operator takes it back. */
  | In<'lost', { readonly cause: Failure }>;

export type SourceEvent =
  | SwitchoverEvent
  | { readonly type: 'message'; readonly message: ToSource }
  | { readonly type: 'journal-written' | 'journal-failed'; readonly record: SourceRecordState }
  /** Everything that the destination needs to load the guest is in the link's hands. */
  | { readonly type: 'state-complete' }
  /** The hypervisor has nothing more to send and cannot restart the guest by itself any more. */
  | { readonly type: 'stream-end' }
  /** The guest runs on the source, as before the migration. */
  | { readonly type: 'rolled-back' }
  | ({ readonly type: 'rollback-failed' } & Failure);

export type SourceAction =
  | { readonly type: 'journal'; readonly record: SourceRecordState }
  | { readonly type: 'send'; readonly message: ToDest }
  /** Make the guest run on the source. Must also work when it already does. */
  | { readonly type: 'rollback' }
  /** The guest lives on the destination now. */
  | { readonly type: 'forget' }
  | SwitchoverReport
  | SwitchoverNote;

type SourceStep = Step<SourceState, SourceAction>;

const CANCELLED: Failure = { code: 'E_CANCELLED', why: 'The migration was cancelled.' };

export function startSource(
  mode: SwitchoverMode,
  limits: SourceLimits,
  now: Millis,
  hands?: SourceHands,
): SourceStep {
  const words = hands === undefined ? {} : { hands };
  return {
    state: { phase: 'copying', mode, limits, ...words, ended: false, since: now, told: null },
    actions: [{ type: 'journal', record: 'started' }],
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
  const base: Base = { mode: modeOf(records), limits, ended: true, since: now, told: null };
  const cause: Failure = { code: 'E_INTERNAL', why: 'The source agent was restarted before the commit.' };
  switch (records.at(-1)?.state) {
    case 'committed':
      return { state: { ...base, phase: 'committed', overdue: null }, actions: [send({ type: 'commit' })] };
    case 'done':
      return { state: { ...base, phase: 'done' }, actions: [] };
    case 'rolled-back':
      return { state: { ...base, phase: 'rolled-back', cause }, actions: [send(discard(cause))] };
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
    case 'uncommitting':
      return aroundCommit(state, event, now);
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
      if (state.phase !== 'copying') return same(state);
      return { state: { ...base(state, now), phase: 'sealing' }, actions: [journal('sealed')] };
    case 'journal-written':
      if (state.phase !== 'sealing' || event.record !== 'sealed') return same(state);
      return {
        state: { ...base(state, now), phase: 'sealed', ready: false },
        actions: [send({ type: 'sealed' })],
      };
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
      return same(state);
    case 'linked':
      return state.phase === 'sealed' ? { state, actions: [send({ type: 'sealed' })] } : same(state);
    case 'guest-gone':
    case 'link-lost':
    case 'failed':
      if (state.phase === 'sealed' && isDispensable(state, event)) return same(state);
      return rollBack(state, event, now);
    case 'cancel':
      return rollBack(state, CANCELLED, now);
    case 'tick': {
      if (state.phase !== 'sealed' || now < state.since + state.limits.readyMs) return same(state);
      const why = `The destination was not ready ${state.limits.readyMs} ms after the guest was sent.`;
      return rollBack(state, { code: 'E_TIMEOUT', why }, now);
    }
    default:
      return same(state);
  }
}

/** A destination that is ready is committed to as soon as the source's hypervisor has let go. */
function tryCommit(state: Phase<'copying' | 'sealing' | 'sealed'>, now: Millis): SourceStep {
  if (state.phase !== 'sealed' || !state.ready) return same(state);
  if (state.mode === 'precopy' && !state.ended) return same(state);
  return { state: { ...base(state, now), phase: 'committing' }, actions: [journal('committed')] };
}

function aroundCommit(
  state: Phase<'committing' | 'uncommitting'>,
  event: SourceEvent,
  now: Millis,
): SourceStep {
  switch (event.type) {
    case 'stream-end':
      return same({ ...state, ended: true });
    case 'journal-written':
      if (state.phase === 'committing' && event.record === 'committed') {
        return {
          state: { ...base(state, now), phase: 'committed', overdue: null },
          actions: [send({ type: 'commit' })],
        };
      }
      if (state.phase === 'uncommitting' && event.record === 'rolling-back') {
        return rollBack(state, state.cause, now);
      }
      return same(state);
    case 'journal-failed': {
      if (state.phase === 'committing' && event.record === 'committed') {
        const why = 'The source could not write the commit to its journal.';
        return uncommit(state, { code: 'E_JOURNAL', why }, now);
      }
      if (state.phase === 'committing' || event.record !== 'rolling-back') return same(state);
      return attention(state, 'neither', {
        code: 'E_JOURNAL',
        why: 'The source cannot write its journal and waits for the destination to confirm that it discarded the guest.',
      });
    }
    case 'message':
      if (state.phase !== 'uncommitting') return same(state);
      if (event.message.type === 'discarded') return rollBack(state, state.cause, now);
      return { state, actions: [send(discard(state.cause))] };
    case 'linked':
      return state.phase === 'uncommitting' ? { state, actions: [send(discard(state.cause))] } : same(state);
    case 'retry':
      return state.phase === 'uncommitting'
        ? { state, actions: [send(discard(state.cause)), journal('rolling-back')] }
        : same(state);
    case 'failed':
    case 'guest-gone':
      if (state.phase !== 'committing' || isDispensable(state, event)) return same(state);
      return uncommit(state, event, now);
    case 'cancel':
      return tooLate(state);
    default:
      return same(state);
  }
}

/** The commit was never said, whatever the disk has of it. */
function uncommit(state: SourceState, { code, why }: Failure, now: Millis): SourceStep {
  const cause: Failure = { code, why };
  return {
    state: { ...base(state, now), phase: 'uncommitting', cause },
    actions: [send(discard(cause)), journal('rolling-back')],
  };
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
      return ended.phase === 'committed' && ended.overdue ? late(ended, ended.overdue) : same(ended);
    }
    case 'message':
      return messageAfterCommit(state, event.message, now);
    case 'linked':
      if (state.phase === 'committed') {
        const fresh: SourceState = { ...state, told: null, since: now, overdue: null };
        return { state: fresh, actions: [send({ type: 'commit' })] };
      }
      if (state.phase === 'finishing') {
        return { state: { ...state, told: null, since: now }, actions: [send({ type: 'commit' })] };
      }
      return same(state);
    case 'journal-written':
    case 'journal-failed':
      return journalAfterCommit(state, event.type, event.record, now);
    case 'guest-gone':
      if (state.mode === 'precopy' || (state.phase !== 'committed' && state.phase !== 'finishing')) {
        return same(state);
      }
      return attention(state, state.phase === 'finishing' ? 'dest' : 'unknown', {
        code: 'E_GUEST_GONE',
        why: `The source's hypervisor is gone and with it the memory that had not been sent: ${event.why}`,
      });
    case 'link-lost':
    case 'failed':
      if (state.phase === 'committed') return attention(state, 'unknown', event);
      return state.phase === 'finishing' ? attention(state, 'dest', event) : same(state);
    case 'tick': {
      if (state.phase !== 'committed' || now < state.since + state.limits.runningMs) return same(state);
      const why = `The destination has not said within ${state.limits.runningMs} ms that it runs the guest.`;
      return late(state, { code: 'E_TIMEOUT', why, guestRunsOn: 'unknown' });
    }
    case 'retry':
      if (state.phase === 'lost') return { state, actions: [journal('rolling-back')] };
      return state.phase === 'committed' || state.phase === 'finishing'
        ? { state, actions: [send({ type: 'commit' })] }
        : same(state);
    case 'cancel':
      return tooLate(state);
    default:
      return same(state);
  }
}

function messageAfterCommit(
  state: Phase<'committed' | 'finishing' | 'closing' | 'done' | 'lost'>,
  message: ToSource,
  now: Millis,
): SourceStep {
  if (state.phase === 'closing' || state.phase === 'done') return same(state);
  switch (message.type) {
    case 'ready':
      return state.phase === 'lost' ? same(state) : { state, actions: [send({ type: 'commit' })] };
    case 'running':
      if (state.phase !== 'committed') return same(state);
      if (state.mode === 'postcopy') {
        return same({ ...base(state, now), phase: 'finishing', told: null });
      }
      return { state: { ...base(state, now), phase: 'closing' }, actions: [journal('done')] };
    case 'complete':
      if (state.phase === 'lost') return same(state);
      return { state: { ...base(state, now), phase: 'closing' }, actions: [journal('done')] };
    case 'run-failed':
      return state.phase === 'committed'
        ? late(state, { code: message.code, why: message.why, guestRunsOn: 'neither' })
        : same(state);
    case 'discarded': {
      if (state.phase !== 'committed') return same(state);
      const cause: Failure = { code: 'E_GUEST_GONE', why: message.why };
      return attention({ ...base(state, now), phase: 'lost', cause }, 'neither', {
        code: cause.code,
        why: `The guest was committed to the destination, which lost it before it ran: ${cause.why}`,
      });
    }
  }
}

function journalAfterCommit(
  state: Phase<'committed' | 'finishing' | 'closing' | 'done' | 'lost'>,
  type: 'journal-written' | 'journal-failed',
  record: SourceRecordState,
  now: Millis,
): SourceStep {
  if (state.phase === 'closing' && record === 'done') {
    const unwritten: SourceAction[] =
      type === 'journal-failed'
        ? [{ type: 'note', text: 'The source could not write the end of the migration to its journal.' }]
        : [];
    return {
      state: { ...base(state, now), phase: 'done' },
      actions: [
        ...unwritten,
        { type: 'forget' },
        report('completed', null, 'The guest runs on the destination.', 'dest', ''),
      ],
    };
  }
  if (state.phase === 'lost' && record === 'rolling-back' && type === 'journal-written') {
    return rollBack(state, state.cause, now);
  }
  return same(state);
}

function rollingBack(
  state: Phase<'rolling-back' | 'rolled-back'>,
  event: SourceEvent,
  now: Millis,
): SourceStep {
  switch (event.type) {
    case 'rolled-back': {
      if (state.phase !== 'rolling-back') return same(state);
      const cancelled = state.cause.code === 'E_CANCELLED';
      return {
        state: { ...base(state, now), phase: 'rolled-back', cause: state.cause },
        actions: [
          report(
            cancelled ? 'cancelled' : 'failed',
            state.cause.code,
            state.cause.why,
            'source',
            'The guest runs on the source as before; remove the cause and start the migration again.',
          ),
          journal('rolled-back'),
        ],
      };
    }
    case 'rollback-failed':
      if (state.phase !== 'rolling-back') return same(state);
      return attention({ ...state, stuck: true }, 'unknown', {
        code: event.code,
        why: `${state.cause.why} The guest could not be resumed on the source: ${event.why}`,
      });
    case 'retry':
      return state.phase === 'rolling-back' && state.stuck
        ? { state: { ...state, stuck: false, told: null }, actions: [{ type: 'rollback' }] }
        : same(state);
    case 'linked':
      return { state, actions: [send(discard(state.cause))] };
    case 'message':
      return event.message.type === 'ready' ? { state, actions: [send(discard(state.cause))] } : same(state);
    case 'journal-failed':
      return {
        state,
        actions: [{ type: 'note', text: 'The source could not write the roll-back to its journal.' }],
      };
    default:
      return same(state);
  }
}

function rollBack(state: SourceState, cause: Failure, now: Millis): SourceStep {
  const failure: Failure = { code: cause.code, why: cause.why };
  return {
    state: { ...base(state, now), phase: 'rolling-back', cause: failure, stuck: false, told: null },
    actions: [send(discard(failure)), { type: 'rollback' }],
  };
}

function attention(state: SourceState, guestRunsOn: GuestRunsOn, failure: Failure): SourceStep {
  if (state.told === failure.why) return same(state);
  return {
    state: { ...state, told: failure.why },
    actions: [report('attention', failure.code, failure.why, guestRunsOn, remedyFor(state))],
  };
}

/** The guest does not run where it belongs. As long as memory of it is here, sending that is the remedy. */
function late(state: Phase<'committed'>, overdue: Overdue): SourceStep {
  if (state.ended) return attention(state, overdue.guestRunsOn, overdue);
  if (state.overdue?.why === overdue.why) return same(state);
  const text = `${overdue.why} The source goes on sending the rest of its memory, and does not run it.`;
  return { state: { ...state, overdue }, actions: [{ type: 'note', text }] };
}

function remedyFor(state: SourceState): string {
  const { here, there } = state.hands ?? { here: QEMU_BY_HAND, there: QEMU_BY_HAND };
  switch (state.phase) {
    case 'lost':
      return `The source still holds the guest, paused: let it run there (${here.run}).`;
    case 'rolling-back':
      return `The guest belongs to the source. End what is left of it on the destination (${there.end}), then let it run on the source (${here.run}).`;
    case 'uncommitting':
      return `Make room for the source's journal. The destination was never told to run the guest: end what is left of it there (${there.end}), then let it run on the source (${here.run}).`;
    default:
      return state.mode === 'precopy' || state.ended
        ? `The guest belongs to the destination, which has all of it: if it does not run there, let it run there (${there.run}). Never let it run on the source.`
        : `The guest belongs to the destination, and part of its memory is still on the source: keep both hypervisors, and never let it run on the source; ${here.finish}.`;
  }
}

function tooLate(state: SourceState): SourceStep {
  const text = 'The migration can no longer be cancelled: the guest is committed to the destination.';
  return { state, actions: [{ type: 'note', text }] };
}

function base(state: SourceState, now: Millis): Base {
  const { mode, limits, hands, ended, told } = state;
  return { mode, limits, ...(hands === undefined ? {} : { hands }), ended, since: now, told };
}

function same(state: SourceState): SourceStep {
  return { state, actions: [] };
}

function send(message: ToDest): SourceAction {
  return { type: 'send', message };
}

function journal(record: SourceRecordState): SourceAction {
  return { type: 'journal', record };
}

function discard(cause: Failure): ToDest {
  return { type: 'discard', why: cause.why };
}
