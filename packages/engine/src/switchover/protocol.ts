/** What the two halves of the two-phase commit say to each other and to the agents that drive them. */
import type { ErrorCode, GuestRunsOn } from '../errors.ts';
import type { Millis } from '../units.ts';

/** `postcopy` when the guest moves before its memory has. */
export type SwitchoverMode = 'precopy' | 'postcopy';

/** Every message may be sent again at any time; the receiver knows what it has had. */
export type ToDest =
  /** Everything that is needed to load the guest was sent before this. */
  | { readonly type: 'sealed' }
  | { readonly type: 'commit' }
  | { readonly type: 'discard'; readonly why: string };

export type ToSource =
  /** The guest is loaded and stays paused until it hears the outcome. */
  | { readonly type: 'ready' }
  /** The guest runs (or stands paused, as it did on the source) since `atMs` of the destination's clock. */
  | { readonly type: 'running'; readonly atMs: Millis }
  /** No page is missing any more. */
  | { readonly type: 'complete' }
  /** The guest could not be run although it was committed; unless it is gone, it may be tried again. */
  | ({ readonly type: 'run-failed' } & Failure)
  /** The guest never ran on the destination and never will. */
  | { readonly type: 'discarded'; readonly why: string };

export interface Failure {
  readonly code: ErrorCode;
  readonly why: string;
}

/** Events that both halves have in common. */
export type SwitchoverEvent =
  /** A connection is up again that does not remember what was sent: what still matters is said again. */
  | { readonly type: 'linked' }
  /** The reconnect deadline is over. Shorter breaks are the link's own business and no event. */
  | ({ readonly type: 'link-lost' } & Failure)
  /** The hypervisor died or gave the migration up. */
  | ({ readonly type: 'guest-gone' } & Failure)
  /** Anything else that makes this side unable to go on. */
  | ({ readonly type: 'failed' } & Failure)
  | { readonly type: 'cancel' }
  /** Time passed; see `sourceDeadline` and `destDeadline`. */
  | { readonly type: 'tick' }
  /** The operator asks to try again what is stuck. */
  | { readonly type: 'retry' };

/** The end of a migration as one side sees it, or a state that needs an operator. */
export interface SwitchoverReport {
  readonly type: 'report';
  /** `attention` may be followed by another report when things mend; the others are final. */
  readonly outcome: 'completed' | 'failed' | 'cancelled' | 'attention';
  readonly code: ErrorCode | null;
  readonly why: string;
  readonly guestRunsOn: GuestRunsOn;
  readonly remedy: string;
}

/** Something the operator should know, with no effect on the outcome. */
export interface SwitchoverNote {
  readonly type: 'note';
  readonly text: string;
}

export interface Step<State, Action> {
  readonly state: State;
  /** In this order. A `journal` action is always the last: what depends on it follows `journal-written`. */
  readonly actions: readonly Action[];
}
