/** What failed on this side, as the source is told of it: whoever met a failure knows more of it than the machine. */
import { GuestError, type GuestRunsOn } from '@vmferry/engine/errors';
import type { Failure } from '@vmferry/engine/switchover/protocol';
import type { ControlChannel } from '@vmferry/wire/control';
import type { Account } from './account.ts';

export class Causes {
  readonly #control: ControlChannel;
  readonly #account: Pick<Account, 'phase'>;
  /** The first that came with a remedy. */
  #first: GuestError | undefined;

  constructor(control: ControlChannel, account: Pick<Account, 'phase'>) {
    this.#control = control;
    this.#account = account;
  }

  met(error: unknown): void {
    if (error instanceof GuestError) this.#first ??= error;
  }

  /** As long as the source can be told anything. */
  tellSource({ code, why }: Failure, guestRunsOn: GuestRunsOn): void {
    if (this.#control.link.state !== 'open') return;
    const remedy = this.#first?.message === why ? this.#first.remedy : "see the destination agent's log";
    const { phase } = this.#account;
    this.#control.send({
      type: 'failure',
      error: { code, message: why, side: 'dest', phase, guestRunsOn, remedy },
    });
  }
}
