/** What the destination says once the guest is on its way, and what is done about it here. */
import { blockIndex, millis, pages } from '@vmferry/engine/units';
import type { ControlMessage } from '@vmferry/wire/messages';
import type { Account } from './account.ts';
import type { Causes } from './causes.ts';
import { knownCode, linkLost } from './failures.ts';
import type { LastFigures } from './last-figures.ts';
import type { Departure } from './preflight.ts';
import type { Switchover } from './switchover.ts';
import type { Traffic } from './traffic.ts';

export interface PeerNewsOptions {
  readonly departure: Pick<Departure, 'guest' | 'destination'>;
  readonly account: Account;
  readonly causes: Causes;
  readonly lastFigures: LastFigures;
  readonly switchover: Pick<Switchover, 'state' | 'tell' | 'fail'>;
  readonly traffic: Pick<Traffic, 'fault' | 'guestRuns'>;
}

export class PeerNews {
  readonly #options: PeerNewsOptions;

  constructor(options: PeerNewsOptions) {
    this.#options = options;
  }

  /** From now on, until the link's end. */
  listen(): void {
    const { destination } = this.#options.departure;
    destination.control.onMessage = (message) => this.#onMessage(message);
    void destination.broken.then((why) => this.#onBroken(why));
  }

  #onMessage(message: ControlMessage): void {
    const { account, causes, departure, lastFigures, switchover, traffic } = this.#options;
    switch (message.type) {
      case 'fault':
        traffic.fault(
          message.ranges.map(({ block, first, count }) => ({
            block: blockIndex(block),
            first: pages(first),
            count: pages(count),
          })),
        );
        return;
      case 'reply':
        departure.guest.deliverReply(message.bytes);
        return;
      case 'ready':
        account.times.ready();
        void this.#onReady();
        return;
      case 'running': {
        const atMs = millis(message.atMs);
        lastFigures.expect(message.examines ?? false);
        traffic.guestRuns();
        account.times.running(atMs, { pagesFollow: switchover.state.mode === 'postcopy' });
        causes.peerRuns();
        switchover.tell({ type: 'message', message: { type: 'running', atMs } });
        if (switchover.state.phase === 'finishing') account.enter('postcopy');
        return;
      }
      case 'complete':
        if (switchover.state.mode === 'postcopy') account.times.complete(millis(message.atMs));
        lastFigures.arrived(message);
        switchover.tell({ type: 'message', message: { type: 'complete' } });
        return;
      case 'failure':
        this.#onFailure(message.error);
        return;
      case 'discarded': {
        for (const note of message.notes ?? []) account.note(note);
        const why = causes.peer?.message ?? 'the destination gave the guest up';
        switchover.tell({ type: 'message', message: { type: 'discarded', why } });
        return;
      }
      default:
        return;
    }
  }

  /** A source that could still run the guest by itself is not ready for what READY allows. */
  async #onReady(): Promise<void> {
    const { departure, switchover } = this.#options;
    try {
      await departure.guest.letsGo?.();
    } catch (error) {
      // Another reason to give it up was there before.
      if (switchover.state.phase === 'sealed') switchover.fail(error);
      return;
    }
    switchover.tell({ type: 'message', message: { type: 'ready' } });
  }

  /** Before the commit `discarded` follows and decides. */
  #onFailure(error: ControlMessage<'failure'>['error']): void {
    const { causes, switchover, traffic } = this.#options;
    const { phase } = switchover.state;
    // The echo of what this side gave up.
    if (phase === 'rolling-back' || phase === 'rolled-back') return;
    causes.peerMet(error);
    const failure = { code: knownCode(error.code), why: error.message };
    const gone = failure.code === 'E_GUEST_GONE';
    if (phase === 'committed' && error.guestRunsOn === 'neither' && !gone) {
      // No first faults are to be waited for: the rest may have the link.
      traffic.guestRuns();
      switchover.tell({ type: 'message', message: { type: 'run-failed', ...failure } });
    } else if (phase === 'finishing' || (phase === 'committed' && gone)) {
      switchover.tell({ type: 'failed', ...failure });
    }
  }

  /** A destination that cannot end what it had says why it goes away. */
  #onBroken(how: string): void {
    const { causes, switchover } = this.#options;
    const { phase } = switchover.state;
    const told = phase === 'copying' || phase === 'sealing' || phase === 'sealed' ? causes.peer : undefined;
    const lost = linkLost(how);
    causes.met(lost);
    const { code, message: why } = told ?? lost;
    switchover.tell({ type: 'link-lost', code: knownCode(code), why });
  }
}
