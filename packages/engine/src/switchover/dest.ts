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
import { type ByHand, QEMU_BY_HAND } from '../by-hand.ts';
import type { GuestRunsOn } from '../errors.ts';
import { type DestRecordState, type JournalRecord, modeOf } from '../journal/records.ts';
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

export interface DestLimits {
  /** From SEALED to the guest being loaded. */
  readonly loadMs: number;
  /** From READY to the outcome, after which the operator is told. */
  readonly outcomeMs: number;
}

interface Base {
  readonly mode: SwitchoverMode;
  /** Post-copy that the source's hypervisor can never take back. */
  readonly final: boolean;
  readonly limits: DestLimits;
  /** Left out: QEMU's. */
  readonly hands?: ByHand;
  /** When this phase began. */
  readonly since: Millis;
  readonly told: string | null;
}

/** Distributes over the phases' names, so that each phase is a member of the union by itself. */
type In<Name extends string, Own = unknown> = Name extends string
  ? Base & { readonly phase: Name } & Own
  : never;

export type DestState =
  | In<'receiving', { readonly sealedAt: Millis | null; readonly loaded: boolean }>
  | In<'voting' | 'ready'>
  /**
   * `complete`: no page is missing, although the guest does not run yet (pre-copy). `lost`: what broke meanwhile, which
   * matters once the guest runs with pages missing.
   */
  | In<'accepting' | 'starting', { readonly complete: boolean; readonly lost: Failure | null }>
  | In<'running' | 'closing' | 'done', { readonly ranAt: Millis }>
  /** `stuck`: the hypervisor would not end; `retry` tries again. */
  | In<'discarding', { readonly cause: Failure; readonly stuck: boolean }>
  | In<'discarded', { readonly cause: Failure }>;

export type DestEventIn =
  | SwitchoverEvent
  | { readonly type: 'message'; readonly message: ToDest }
  | { readonly type: 'journal-written' | 'journal-failed'; readonly record: DestRecordState }
  /** All state is loaded and the guest could run. */
  | { readonly type: 'guest-loaded' }
  | { readonly type: 'guest-running'; readonly atMs: Millis }
  | ({ readonly type: 'run-failed' } & Failure)
  /** No page is missing. Comes in pre-copy too. */
  | { readonly type: 'guest-complete' }
  | { readonly type: 'guest-discarded' }
  | ({ readonly type: 'discard-failed' } & Failure);

export type DestAction =
  | { readonly type: 'journal'; readonly record: DestRecordState }
  | { readonly type: 'send'; readonly message: ToSource }
  /** Run the guest. Must also work when it already runs. */
  | { readonly type: 'run-guest' }
  /** End the guest here. Must also work when there is none. */
  | { readonly type: 'discard-guest' }
  /** Tell the network where the guest is now. */
  | { readonly type: 'announce' }
  | SwitchoverReport
  | SwitchoverNote;

type DestStep = Step<DestState, DestAction>;

export function startDest(mode: SwitchoverMode, limits: DestLimits, now: Millis, hands?: ByHand): DestStep {
  return {
    state: {
      phase: 'receiving',
      mode,
      final: false,
      limits,
      ...(hands === undefined ? {} : { hands }),
      since: now,
      told: null,
      sealedAt: null,
      loaded: false,
    },
    actions: [{ type: 'journal', record: 'started' }],
  };
}

/** Pre-copy turns into post-copy (hybrid). Only before the guest is loaded. */
export function destToPostcopy(state: DestState, { final }: { readonly final: boolean }): DestState {
  return state.phase === 'receiving' ? { ...state, mode: 'postcopy', final } : state;
}

/** Takes a migration up after the agent was restarted. */
export function recoverDest(records: readonly JournalRecord[], limits: DestLimits, now: Millis): DestStep {
  const base: Base = { mode: modeOf(records), final: false, limits, since: now, told: null };
  const last = records.at(-1);
  const cause: Failure = {
    code: 'E_INTERNAL',
    why: 'The destination agent was restarted before the guest was loaded.',
  };
  switch (last?.state) {
    case 'ready':
      return { state: { ...base, phase: 'ready' }, actions: [send({ type: 'ready' })] };
    case 'run':
      return {
        state: { ...base, phase: 'starting', complete: false, lost: null },
        actions: [{ type: 'run-guest' }],
      };
    case 'done':
      return { state: { ...base, phase: 'done', ranAt: millis(last.at) }, actions: [] };
    case 'discarded':
      return { state: { ...base, phase: 'discarded', cause }, actions: [send(discarded(cause))] };
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
      return same(state);
    case 'guest-loaded':
      return state.phase === 'receiving' ? tryVote({ ...state, loaded: true }, now) : same(state);
    case 'journal-written':
      if (state.phase !== 'voting' || event.record !== 'ready') return same(state);
      return { state: { ...base(state, now), phase: 'ready' }, actions: [send({ type: 'ready' })] };
    case 'journal-failed':
      return discardGuest(
        state,
        { code: 'E_JOURNAL', why: 'The destination could not write its journal.' },
        now,
      );
    case 'guest-gone':
      return discardGuest(state, event, now);
    case 'link-lost':
    case 'failed':
      return giveUp(state, event, now);
    case 'cancel':
      return giveUp(
        state,
        { code: 'E_CANCELLED', why: 'The migration was cancelled on the destination.' },
        now,
      );
    case 'tick': {
      if (state.phase !== 'receiving' || state.sealedAt === null) return same(state);
      if (now < state.sealedAt + state.limits.loadMs) return same(state);
      const why = `The guest was not loaded within ${state.limits.loadMs} ms.`;
      return discardGuest(state, { code: 'E_TIMEOUT', why }, now);
    }
    default:
      return same(state);
  }
}

/** The source will not have it here, or cannot be heard. */
function giveUp(state: Phase<'receiving' | 'voting' | 'ready'>, cause: Failure, now: Millis): DestStep {
  const loaded = state.phase !== 'receiving' || state.loaded;
  return state.final && loaded ? accept(state, cause, now) : discardGuest(state, cause, now);
}

function accept(state: DestState, lost: Failure | null, now: Millis): DestStep {
  const why: Failure | null = lost && { code: lost.code, why: lost.why };
  return {
    state: { ...base(state, now), phase: 'accepting', complete: false, lost: why, told: null },
    actions: [journal('run')],
  };
}

function tryVote(state: Phase<'receiving'>, now: Millis): DestStep {
  if (state.sealedAt === null || !state.loaded) return same(state);
  return { state: { ...base(state, now), phase: 'voting' }, actions: [journal('ready')] };
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
          return { state, actions: [send({ type: 'ready' })] };
      }
      break;
    case 'linked':
    case 'retry':
      return { state: { ...state, since: now, told: null }, actions: [send({ type: 'ready' })] };
    case 'guest-gone':
      return discardGuest(state, event, now);
    case 'link-lost':
      return state.final ? accept(state, event, now) : attention(state, 'unknown', event);
    case 'failed':
      return attention(state, 'unknown', event);
    case 'tick': {
      if (now < state.since + state.limits.outcomeMs) return same(state);
      const why = `The source has not said within ${state.limits.outcomeMs} ms whether the guest may run here.`;
      return attention(state, 'unknown', { code: 'E_TIMEOUT', why });
    }
    case 'cancel':
      return {
        state,
        actions: [{ type: 'note', text: 'The destination is ready: only the source can cancel now.' }],
      };
    default:
      return same(state);
  }
  return same(state);
}

function starting(state: Phase<'accepting' | 'starting'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'journal-written':
      if (state.phase !== 'accepting' || event.record !== 'run') return same(state);
      return {
        state: { ...state, phase: 'starting', since: now, told: null },
        actions: [{ type: 'run-guest' }],
      };
    case 'journal-failed':
      // A guest that ran without a record could be discarded, after a restart, by an old message.
      if (state.phase !== 'accepting' || event.record !== 'run') return same(state);
      return runFailed(state, {
        code: 'E_JOURNAL',
        why: 'The guest is committed to the destination, which cannot write its journal and so does not run it yet.',
      });
    case 'guest-complete':
      return same({ ...state, complete: true });
    case 'guest-running': {
      if (state.phase !== 'starting') return same(state);
      const ran: DestState = { ...base(state, now), phase: 'running', ranAt: event.atMs, told: null };
      const actions: DestAction[] = [send({ type: 'running', atMs: event.atMs }), { type: 'announce' }];
      if (!state.complete) {
        if (state.mode === 'precopy' || state.lost === null) return { state: ran, actions };
        const told = attention(ran, 'dest', state.lost);
        return { state: told.state, actions: [...actions, ...told.actions] };
      }
      return { state: { ...ran, phase: 'closing' }, actions: [...actions, journal('done')] };
    }
    case 'run-failed':
    case 'guest-gone':
      return runFailed(state, event);
    case 'link-lost':
    case 'failed':
      return same({ ...state, lost: state.lost ?? { code: event.code, why: event.why } });
    case 'linked':
      return same({ ...state, lost: null });
    case 'retry':
      return {
        state: { ...state, told: null },
        actions: [state.phase === 'starting' ? { type: 'run-guest' } : journal('run')],
      };
    case 'message':
      return event.message.type === 'discard' ? brokenPeer(state, 'neither') : same(state);
    default:
      return same(state);
  }
}

function runFailed(state: Phase<'accepting' | 'starting'>, { code, why }: Failure): DestStep {
  const step = attention(state, 'neither', { code, why });
  return { state: step.state, actions: [send({ type: 'run-failed', code, why }), ...step.actions] };
}

function running(state: Phase<'running' | 'closing' | 'done'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'guest-complete':
      if (state.phase !== 'running') return same(state);
      return {
        state: { ...base(state, now), phase: 'closing', ranAt: state.ranAt },
        actions: [journal('done')],
      };
    case 'journal-written':
    case 'journal-failed':
      if (state.phase !== 'closing' || event.record !== 'done') return same(state);
      return {
        state: { ...base(state, now), phase: 'done', ranAt: state.ranAt },
        actions: [
          send({ type: 'complete' }),
          report('completed', null, 'The guest runs on the destination.', 'dest', ''),
        ],
      };
    case 'linked':
      return { state: { ...state, told: null }, actions: standing(state) };
    case 'message':
      return event.message.type === 'discard'
        ? brokenPeer(state, 'dest')
        : { state, actions: standing(state) };
    case 'link-lost':
    case 'failed':
      if (state.phase !== 'running') return same(state);
      return attention(state, 'dest', event);
    case 'guest-gone':
      if (state.phase !== 'running') return same(state);
      return attention(state, 'neither', event);
    default:
      return same(state);
  }
}

/** What a source that has forgotten has to be told. */
function standing(state: Phase<'running' | 'closing' | 'done'>): DestAction[] {
  const actions: DestAction[] = [send({ type: 'running', atMs: state.ranAt })];
  if (state.phase === 'done') actions.push(send({ type: 'complete' }));
  return actions;
}

function discarding(state: Phase<'discarding' | 'discarded'>, event: DestEventIn, now: Millis): DestStep {
  switch (event.type) {
    case 'guest-discarded':
      return state.phase === 'discarding' ? { state, actions: [journal('discarded')] } : same(state);
    case 'discard-failed':
      if (state.phase !== 'discarding') return same(state);
      return attention({ ...state, stuck: true }, 'unknown', {
        code: event.code,
        why: `The guest could not be ended on the destination: ${event.why}`,
      });
    case 'retry':
      return state.phase === 'discarding' && state.stuck
        ? { state: { ...state, stuck: false, told: null }, actions: [{ type: 'discard-guest' }] }
        : same(state);
    case 'journal-written':
    case 'journal-failed':
      // The guest is gone for good, on disk or not: a restart finds nothing that could run.
      if (state.phase !== 'discarding' || event.record !== 'discarded') return same(state);
      return {
        state: { ...base(state, now), phase: 'discarded', cause: state.cause },
        actions: [
          send(discarded(state.cause)),
          report(
            state.cause.code === 'E_CANCELLED' ? 'cancelled' : 'failed',
            state.cause.code,
            state.cause.why,
            'unknown',
            'Nothing is left on the destination; the source tells where the guest runs.',
          ),
        ],
      };
    case 'linked':
    case 'message':
      return state.phase === 'discarded' ? { state, actions: [send(discarded(state.cause))] } : same(state);
    default:
      return same(state);
  }
}

function discardGuest(state: DestState, cause: Failure, now: Millis): DestStep {
  const failure: Failure = { code: cause.code, why: cause.why };
  return {
    state: { ...base(state, now), phase: 'discarding', cause: failure, stuck: false, told: null },
    actions: [{ type: 'discard-guest' }],
  };
}

/** After its commit the source can no longer take the guest back, whatever it says. */
function brokenPeer(state: DestState, guestRunsOn: GuestRunsOn): DestStep {
  return attention(state, guestRunsOn, {
    code: 'E_PROTOCOL',
    why: 'The source asked to discard a guest that it had committed. The guest was kept.',
  });
}

function attention(state: DestState, guestRunsOn: GuestRunsOn, failure: Failure): DestStep {
  if (state.told === failure.why) return same(state);
  return {
    state: { ...state, told: failure.why },
    actions: [report('attention', failure.code, failure.why, guestRunsOn, remedyFor(state))],
  };
}

function remedyFor(state: DestState): string {
  const { run, end, finish } = state.hands ?? QEMU_BY_HAND;
  switch (state.phase) {
    case 'ready':
      return `Only the source's journal (STATE_DIR/journal/SESSION-source.journal) knows the outcome. If its last line says committed or done, let the guest run here (${run}). If it says anything else, end the guest here (${end}), and let it run on the source.`;
    case 'running':
      return `The source still holds memory of the guest: keep both hypervisors, and never let it run on the source; ${finish}.`;
    case 'accepting':
      return `The guest was committed to this host. Make room for the destination's journal, then let it run here (${run}), never on the source.`;
    case 'discarding':
      return `The guest never ran here and never may. The agent goes on trying to end it; or end it on the destination (${end}).`;
    default:
      return `The guest was committed to this host. Mend the cause, then let it run here (${run}), never on the source.`;
  }
}

function base(state: DestState, now: Millis): Base {
  const { mode, final, limits, hands, told } = state;
  return { mode, final, limits, ...(hands === undefined ? {} : { hands }), since: now, told };
}

function same(state: DestState): DestStep {
  return { state, actions: [] };
}

function send(message: ToSource): DestAction {
  return { type: 'send', message };
}

function journal(record: DestRecordState): DestAction {
  return { type: 'journal', record };
}

function discarded(cause: Failure): ToSource {
  return { type: 'discarded', why: cause.why };
}
