/**
 * Why a migration failed. The switchover machine knows what a failure means; whoever met it knows more of what it was,
 * and the destination's own words for it are better than this side's.
 */
import { allOf, type ErrorCode, type ErrorReport, type Phase } from '@vmferry/engine/errors';
import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import type { ControlMessage } from '@vmferry/wire/messages';
import { type FailureFacts, knownCode } from './failures.ts';

type PeerFailure = ControlMessage<'failure'>['error'];

export class Causes {
  /** The first on this side. */
  #own: FailureFacts | undefined;
  /** The first on the destination's since it ran the guest, if it has. */
  #peer: PeerFailure | undefined;
  /** Where the migration was when it was given up. */
  #givenUpIn: Phase | undefined;
  #guestEnded = false;

  get peer(): PeerFailure | undefined {
    return this.#peer;
  }

  met(facts: FailureFacts): void {
    this.#own ??= facts;
  }

  peerMet(failure: PeerFailure): void {
    this.#peer ??= failure;
  }

  /** Whatever kept the destination from running the guest is over. */
  peerRuns(): void {
    this.#peer = undefined;
  }

  givenUp(phase: Phase): void {
    this.#givenUpIn ??= phase;
  }

  /** The source's hypervisor ended, and the guest with it. */
  guestEnded(): void {
    this.#guestEnded = true;
  }

  /** `phase`: where the migration is. */
  explain(report: SwitchoverReport, code: ErrorCode, phase: Phase): ErrorReport {
    const peer = this.#peer;
    const own = this.#own?.message === report.why ? this.#own : undefined;
    const cause = peer?.message === report.why ? peer : own;
    const neither = this.#guestEnded || peer?.guestRunsOn === 'neither';
    return {
      code: this.#guestEnded ? 'E_GUEST_GONE' : cause ? knownCode(cause.code) : code,
      message: report.why,
      side: cause === peer && peer ? 'dest' : (own?.side ?? 'source'),
      phase: this.#givenUpIn ?? phase,
      guestRunsOn: neither ? 'neither' : report.guestRunsOn,
      remedy: this.#guestEnded
        ? 'Nothing is left on the destination. Start the guest again on either host if it is to run.'
        : allOf([cause?.remedy ?? '', report.remedy]),
    };
  }
}
