/**
 * What becomes of the guest, the link and the journal when the switchover has come to a report.
 *
 *     completed, failed, cancelled ──▶ all is let go of
 *     attention: a halted post-copy that can be finished later ──▶ left so
 *                the guest does not run again on the source ──▶ tried again until it does ──▶ let go of
 *                anything else ──▶ kept, for the operator
 */
import type { Logger } from '@vmferry/agent-core/log';
import type { ByHand } from '@vmferry/engine/by-hand';
import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import type { SourceHands } from '@vmferry/engine/switchover/source-state';
import type { Account } from './account.ts';
import type { Causes } from './causes.ts';
import { factsOf } from './failures.ts';
import type { Departure } from './preflight.ts';
import type { Switchover } from './switchover.ts';

/** Between two tries to let a guest run again that would not. */
const RETRY_MS = 5000;

/** Of a post-copy that was given up before its commit: only the destination can know whether it could be finished. */
function haltedEarly(here: ByHand, there: ByHand): string {
  return `The source cannot take the guest back. Where the destination had loaded it, its agent has let it run: if "${there.state}" says "running (post-copy failed)" there, ${here.finish}. If the domain is not there, what it had in memory is lost: end it on the source (${here.end}) and start it from its disks.`;
}

function halted({ finish }: ByHand): string {
  return `Bring both agents and the link between them back, then ${finish}. Never let the guest run on the source.`;
}

export interface EndingOptions {
  readonly departure: Pick<Departure, 'guest' | 'destination' | 'journal'>;
  readonly hands: SourceHands;
  readonly account: Account;
  readonly causes: Causes;
  readonly switchover: Switchover;
  readonly log: Logger;
  /** Nothing of the guest is to be sent any more. */
  readonly stopTraffic: (why: string) => void;
}

export class Ending {
  readonly #options: EndingOptions;
  #retryTimer: NodeJS.Timeout | undefined;

  constructor(options: EndingOptions) {
    this.#options = options;
    const { switchover } = options;
    switchover.mended
      .then((report) => this.#mended(report))
      .catch((error: unknown) => switchover.fail(error));
  }

  /** Gives the report with what is to be done in the end. */
  async bringAbout(report: SwitchoverReport): Promise<SwitchoverReport> {
    const { departure, hands, switchover, stopTraffic } = this.#options;
    const { outcome } = report;
    const { here, there } = hands;
    if (outcome !== 'attention') switchover.stop();
    // As long as the link holds, the destination may still ask for what is here.
    if (outcome !== 'attention' || !this.#linked) stopTraffic('the migration is over');
    // An unfinished post-copy keeps its sockets: to close them would only add a second fault.
    await departure.journal.close();
    if (outcome !== 'attention') {
      await this.#letGo(outcome === 'completed');
      return report;
    }
    if (!this.#canBeFinishedLater(report)) {
      this.#tryAgain();
      return report;
    }
    await this.#suspend();
    const early = switchover.state.phase === 'rolling-back';
    return { ...report, remedy: early ? haltedEarly(here, there) : halted(here) };
  }

  get #linked(): boolean {
    return this.#options.departure.destination.control.link.state === 'open';
  }

  /**
   * A guest that does not run again is most often kept from its disks by a destination that has not ended yet. The
   * operator was told; should it end later, the guest is not to stand still until somebody comes.
   */
  #tryAgain(): void {
    const { switchover } = this.#options;
    if (switchover.state.phase !== 'rolling-back') return;
    this.#retryTimer = setInterval(() => switchover.tell({ type: 'retry' }), RETRY_MS).unref();
  }

  /** What needed an operator has come to its end after all; the report is out, and is not taken back. */
  async #mended({ outcome, why }: SwitchoverReport): Promise<void> {
    clearInterval(this.#retryTimer);
    this.#options.switchover.stop();
    this.#options.log.info({ outcome, why }, 'the migration that needed an operator has ended');
    await this.#letGo(outcome === 'completed');
  }

  /** A post-copy that nothing here brings on any more, of a guest whose hypervisors can finish it another time. */
  #canBeFinishedLater({ code }: SwitchoverReport): boolean {
    const { causes, departure, switchover } = this.#options;
    const { mode, phase } = switchover.state;
    if (!departure.guest.suspend || mode !== 'postcopy') return false;
    // Of a link that breaks, one stream may be the first to know.
    const linked = this.#linked && code !== 'E_LINK_LOST';
    // A destination that says that the guest runs there, and fails, has left it halted.
    if (causes.peer?.guestRunsOn === 'dest') return true;
    const stalled = code === 'E_STALLED' && phase !== 'committed';
    return !linked || stalled || phase === 'rolling-back';
  }

  async #suspend(): Promise<void> {
    const { account, departure, switchover, stopTraffic } = this.#options;
    stopTraffic('the migration is over');
    switchover.stop();
    try {
      await departure.guest.suspend?.();
    } catch (error) {
      account.note(`The source's hypervisor did not come to a halt: ${factsOf(error).message}`);
    }
    await departure.destination.close();
  }

  async #letGo(completed: boolean): Promise<void> {
    const { departure, switchover } = this.#options;
    const { guest, destination } = departure;
    if (completed && this.#linked) destination.control.send({ type: 'goodbye' });
    // A monitor that is closed at once loses the command that ends its hypervisor.
    await switchover.forgotten;
    await guest.close();
    await destination.close();
  }
}
