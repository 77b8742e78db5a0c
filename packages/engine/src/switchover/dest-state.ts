/** The destination's half of the two-phase commit: where it may stand, what it is told, what it has done. */
import type { ByHand } from '../by-hand.ts';
import type { DestRecordState } from '../journal/records.ts';
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

export interface DestLimits {
  /** From SEALED to the guest being loaded. */
  readonly loadMs: number;
  /** From READY to the outcome, after which the operator is told. */
  readonly outcomeMs: number;
}

export interface DestBase {
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

type In<Name extends string, Own = unknown> = InPhase<DestBase, Name, Own>;

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
