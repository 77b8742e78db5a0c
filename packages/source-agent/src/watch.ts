/** Looks at a migration five times a second: what its observers are told of how far it is, and whether it stands still. */
import { machineNow } from '@vmferry/agent-core/machine';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { Account } from './account.ts';
import { EXAMINED_MS, type LastFigures } from './last-figures.ts';
import type { Departure } from './preflight.ts';
import { DISKS_STALLED_MS } from './set-up.ts';
import { SetUpWatch } from './set-up-watch.ts';
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
  readonly request: Pick<MigrateRequest, 'deadlineMs' | 'onStall'>;
  /** See `MigrationLimits`. */
  readonly stalledMs: number | undefined;
}

export class Watch {
  readonly #options: WatchOptions;
  readonly #stalls: StallWatch;
  #setUp: SetUpWatch | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    const { account, request, stalledMs = STALLED_MS } = options;
    const { deadlineMs } = request;
    this.#stalls = new StallWatch({ stalledMs, examinedMs: EXAMINED_MS, deadlineMs }, account.times.began);
  }

  /** @param copies disks are copied along, before the guest's memory */
  setUpBegins({ copies }: { readonly copies: boolean }): void {
    const { account, departure, request, stalledMs = DISKS_STALLED_MS, switchover } = this.#options;
    const { deadlineMs, onStall } = request;
    this.#setUp = new SetUpWatch({
      guest: departure.guest,
      limits: { copies, stalledMs, deadlineMs, onStall },
      elapsedMs: () => account.times.elapsedMs,
      onSeen: () => {
        if (account.phase === 'setup') this.#look();
      },
      tell: (why) => account.note(why),
      onFailure: (failure) => switchover.tell({ type: 'failed', ...failure }),
    });
  }

  memoryBegins(): void {
    this.#setUp?.memoryBegins();
  }

  begin(): void {
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#setUp?.stop();
  }

  #look(): void {
    const { account, departure, traffic } = this.#options;
    account.lookAtWire();
    this.#lookForStalls();
    const disks = this.#setUp?.copied;
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
        begun: account.phase !== 'setup',
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
