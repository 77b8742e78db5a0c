/** What the steps of both halves are made of. */
import type { ErrorCode, GuestRunsOn } from '../errors.ts';
import type { Failure, Step, SwitchoverReport } from './protocol.ts';

/** Distributes over the phases' names, so that each phase is a member of the union by itself. */
export type InPhase<Base, Name extends string, Own = unknown> = Name extends string
  ? Base & { readonly phase: Name } & Own
  : never;

/** What each phase has of its own. */
export type OwnOf<State, Base> = State extends unknown ? Omit<State, keyof Base> : never;

/** No other phase. */
export function stay<State, Action>(state: State, ...actions: Action[]): Step<State, Action> {
  return { state, actions };
}

export function send<Message>(message: Message) {
  return { type: 'send', message } as const;
}

export function journal<Record>(record: Record) {
  return { type: 'journal', record } as const;
}

export function note(text: string) {
  return { type: 'note', text } as const;
}

/** Without what else an event or a report says. */
export function failureOf({ code, why }: Failure): Failure {
  return { code, why };
}

export function report(
  outcome: SwitchoverReport['outcome'],
  code: ErrorCode | null,
  why: string,
  guestRunsOn: GuestRunsOn,
  remedy: string,
): SwitchoverReport {
  return { type: 'report', outcome, code, why, guestRunsOn, remedy };
}

export function reportMoved(): SwitchoverReport {
  return report('completed', null, 'The guest runs on the destination.', 'dest', '');
}

/** The migration came to nothing. */
export function reportGivenUp({ code, why }: Failure, guestRunsOn: GuestRunsOn, remedy: string) {
  return report(code === 'E_CANCELLED' ? 'cancelled' : 'failed', code, why, guestRunsOn, remedy);
}
