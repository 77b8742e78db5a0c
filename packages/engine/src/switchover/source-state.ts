/** The source's half of the two-phase commit: where it may stand, what it is told, what it has done. */
import type { ByHand } from '../by-hand.ts';
import type { GuestRunsOn } from '../errors.ts';
import type { SourceRecordState } from '../journal/records.ts';
import type { Millis } from '../units.ts';
import type {
  Failure,
  SwitchoverEvent,
  SwitchoverMode,
  SwitchoverNote,
  SwitchoverReport,
  ToDest,
  ToSource,
} from './protocol.ts';
import type { InPhase } from './steps.ts';

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

export interface SourceBase {
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

export interface Overdue extends Failure {
  readonly guestRunsOn: GuestRunsOn;
}

type In<Name extends string, Own = unknown> = InPhase<SourceBase, Name, Own>;

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
  /**
   * The guest runs on the source, as before the migration. `cause`: what is known of it only now, and better than what it
   * was given up for.
   */
  | { readonly type: 'rolled-back'; readonly cause?: Failure | undefined }
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
