/** Looks at a migration five times a second: what its observers are told of how far it is, and whether it stands still. */
import { machineNow } from '@vmferry/agent-core/machine';
import type { Account } from './account.ts';
import { DiskWatch } from './disk-watch.ts';
import { EXAMINED_MS, type LastFigures } from './last-figures.ts';
import type { Departure } from './preflight.ts';
import { StallWatch } from './stall-watch.ts';
import type { Switchover } from './switchover.ts';
import type { Traffic } from './traffic.ts';

const LOOK_MS = 200;
/** In post-copy, where a hypervisor itself would wait for ever. */
const STALLED_MS = 30_000;

export interface WatchOptions {
  readonly departure: Pick<Departure, 'guest' | 'description'>;
  readonly account: Account;
  readonly lastFigures: Pick<LastFigures, 'examines'>;
  readonly switchover: Pick<Switchover, 'state' | 'tell'>;
  readonly traffic: Pick<Traffic, 'delivered' | 'decided' | 'faults' | 'look'>;
  /** The operator's. */
  readonly deadlineMs: number | undefined;
  /** After so many milliseconds without a page taken a post-copy counts as halted. */
  readonly stalledMs: number | undefined;
}

export class Watch {
  readonly #options: WatchOptions;
  readonly #stalls: StallWatch;
  #disks: DiskWatch | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    const { account, deadlineMs, stalledMs = STALLED_MS } = options;
    this.#stalls = new StallWatch({ stalledMs, examinedMs: EXAMINED_MS, deadlineMs }, account.times.began);
  }

  /** Disks are copied along, before the guest's memory. */
  beginWithDisks(): void {
    const { account, departure } = this.#options;
    this.#disks = new DiskWatch(departure.guest, () => {
      if (account.phase === 'setup') this.#look();
    });
  }

  begin(): void {
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#disks?.stop();
  }

  #look(): void {
    const { account, departure, traffic } = this.#options;
    account.lookAtWire();
    this.#lookForStalls();
    const disks = this.#disks?.copied;
    account.emit({
      type: 'progress',
      phase: account.phase,
      ...traffic.look(machineNow()),
      elapsedMs: account.times.elapsedMs,
      totalBytes: departure.description.memoryBytes,
      rawBytes: account.rawBytes,
      wireBytes: account.wireBytes,
      faults: traffic.faults,
      ...(disks ? { disks } : {}),
    });
  }

  #lookForStalls(): void {
    const { account, lastFigures, switchover, traffic } = this.#options;
    const { contentBytes, zeroPages } = traffic.delivered;
    const failure = this.#stalls.look(
      {
        state: switchover.state,
        taken: contentBytes + zeroPages,
        stopped: account.times.stopped,
        decided: traffic.decided,
        elapsedMs: account.times.elapsedMs,
        examines: lastFigures.examines,
      },
      machineNow(),
    );
    if (failure) switchover.tell({ type: 'failed', ...failure });
  }
}
