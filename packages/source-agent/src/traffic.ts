/**
 * All of the guest's memory and state on its way, and the policy that steers it.
 *
 *     hypervisor's stream ─▶ transfer ─┬─▶ carrier ─▶ destination ── what it has taken ──▶ policy, pace, progress
 *     page faults ─▶ post-copy sender ─┤
 *                                      └─▶ milestones ─▶ account, policy, switchover
 */
import { machineNow } from '@vmferry/agent-core/machine';
import { expressPages } from '@vmferry/engine/carriage/batch-limits';
import { GuestError } from '@vmferry/engine/errors';
import type { PageRange, SourceItem } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { Delivered } from '@vmferry/engine/policy/link-meter';
import type { ProgressSample } from '@vmferry/engine/policy/steering';
import type { Millis } from '@vmferry/engine/units';
import type { Account } from './account.ts';
import { Carrier } from './carrier.ts';
import { CodecChooser } from './codec-chooser.ts';
import { LiveProgress, type Stage } from './live-progress.ts';
import { Pace } from './pace.ts';
import { PostcopySender } from './postcopy-sender.ts';
import type { Departure } from './preflight.ts';
import { Steering } from './steering.ts';
import type { Switchover } from './switchover.ts';
import { type TransferOptions, transfer } from './transfer.ts';

export interface TrafficOptions {
  readonly departure: Pick<Departure, 'guest' | 'description' | 'destination' | 'postcopyObstacle'>;
  readonly request: MigrateRequest;
  /** What may wait here, in bytes. */
  readonly bufferBytes: number;
  readonly account: Account;
  readonly switchover: Pick<Switchover, 'state' | 'tell' | 'toPostcopy' | 'fail'>;
}

export class Traffic {
  readonly #options: TrafficOptions;
  readonly #codec: CodecChooser;
  readonly #carrier: Carrier;
  readonly #sender: PostcopySender;
  readonly #progress: LiveProgress;
  readonly #steering: Steering;
  #delivered: Delivered = { contentBytes: 0, zeroPages: 0 };

  constructor(options: TrafficOptions) {
    this.#options = options;
    const { account, departure, request, switchover, bufferBytes } = options;
    const { guest, description, destination, postcopyObstacle } = departure;
    const { memoryBytes, oneLiveRound } = description;
    this.#codec = new CodecChooser(request.compress, account.times.began, (why) =>
      account.emit({ type: 'note', text: why }),
    );
    const pace = new Pace();
    this.#carrier = new Carrier({
      control: destination.control,
      data: destination.data,
      express: destination.express,
      bufferBytes,
      codec: () => this.#codec.codec,
      onDelivered: (contentBytes, zeroPages) => {
        this.#delivered = {
          contentBytes: this.#delivered.contentBytes + contentBytes,
          zeroPages: this.#delivered.zeroPages + zeroPages,
        };
        this.#sender.delivered();
        const rate = pace.delivered(contentBytes, machineNow());
        if (rate !== undefined) guest.setPace(rate);
      },
    });
    this.#sender = new PostcopySender({
      guest,
      carrier: this.#carrier,
      backlogBytes: bufferBytes,
      answerPages: expressPages(destination.maxFrameBytes),
      onTaken: (batch) => account.sent(batch),
      onFailure: (error) => switchover.fail(error),
    });
    this.#progress = new LiveProgress(
      {
        guest,
        memoryBytes,
        delivered: () => this.#delivered,
        held: () => this.#carrier.bulkOutstanding + this.#sender.heldBytes,
      },
      machineNow(),
    );
    this.#steering = new Steering({
      ...{ guest, request, memoryBytes, oneLiveRound, postcopyObstacle },
      delivered: () => this.#delivered,
      held: () => this.#carrier.bulkOutstanding,
      landed: () => this.#carrier.landed(),
      emit: (event) => account.emit(event),
      progress: (sample) => this.#progress.policySaw(sample),
      onSwitchover: (why) => account.switchover(why),
      onStrategy: (strategy) => account.decided(strategy),
      onAbort: (code, why) => switchover.tell({ type: 'failed', code, why }),
      onFailure: (error) => switchover.fail(error),
    });
  }

  /** What the destination's hypervisor has taken so far. */
  get delivered(): Delivered {
    return this.#delivered;
  }

  /** The policy decides nothing any more. */
  get decided(): boolean {
    return this.#steering.over;
  }

  get wireBytes(): number {
    return this.#carrier.wireBytes;
  }

  /** Pages that the destination's vCPUs have waited for. */
  get faults(): number {
    return this.#sender.faults;
  }

  /** Sends the guest's stream. Resolves when it has begun: what becomes of it the switchover is told. */
  async begin(items: AsyncIterable<SourceItem>): Promise<void> {
    const { account, departure, switchover } = this.#options;
    await this.#steering.opened();
    transfer(items, {
      guest: departure.guest,
      carrier: this.#carrier,
      postcopy: this.#sender,
      onPages: (batch) => account.sent(batch),
      mayGoOn: (pages) => this.#steering.mayGoOn(pages),
      onMilestone: (item) => this.#onMilestone(item),
    })
      .then(() => this.#sentAll())
      .catch((error: unknown) => switchover.fail(error));
  }

  /** The destination's vCPUs wait for these pages. */
  fault(ranges: readonly PageRange[]): void {
    this.#sender.fault(ranges);
  }

  /** No first faults are to be waited for any more. */
  guestRuns(): void {
    this.#sender.guestRuns();
  }

  /** How far it is. To be called now and then, for the choice of a codec is made by it too. */
  look(now: Millis): ProgressSample {
    this.#progress.look(this.#stage, now);
    this.#codec.observe({
      congested: this.#carrier.congested,
      contentBytes: this.#delivered.contentBytes,
      wireBytes: this.#options.account.wireBytes,
    });
    return this.#progress.sample;
  }

  /** Nothing is sent any more, and whoever waits for that is let go with `why`. */
  stop(why: string): void {
    this.#steering.stop();
    this.#sender.close();
    this.#carrier.close(new GuestError('E_CANCELLED', why, ''));
  }

  get #stage(): Stage {
    const { phase, mode } = this.#options.switchover.state;
    const givenUp = phase === 'rolling-back' || phase === 'rolled-back';
    if (givenUp || !this.#steering.over) return 'steered';
    return mode === 'postcopy' ? 'postcopy' : 'decided';
  }

  /** In post-copy the destination needs this side until the last page is there, not only sent. */
  async #sentAll(): Promise<void> {
    const { switchover } = this.#options;
    const taken = switchover.state.mode !== 'postcopy' || (await this.#carrier.drained());
    // A link that ended before is told by itself.
    if (taken) switchover.tell({ type: 'stream-end' });
  }

  #onMilestone(item: Parameters<TransferOptions['onMilestone']>[0]): void {
    const { account, switchover } = this.#options;
    switch (item.type) {
      case 'ram-layout':
        this.#steering.begin();
        return;
      case 'round-over':
        account.roundOver(item.round);
        return;
      case 'round-end':
        account.roundEnd(item);
        this.#steering.onRoundEnd(item);
        return;
      case 'verbatim':
        account.note(`The stream is carried verbatim from here on, on one stream: ${item.why}.`);
        this.#carrier.carryVerbatim();
        // No layout may be known by then, and none will be.
        this.#steering.begin();
        return;
      case 'stopped':
        account.times.stop(item.atMs);
        this.#steering.stopped();
        this.#enterSwitchover();
        return;
      case 'opaque':
        account.times.opaque();
        return;
      case 'state-complete':
        // Of a guest that stood already nobody said that it stops, and the news of a stop can come after its state.
        this.#steering.stopped();
        this.#enterSwitchover();
        this.#steering.stop();
        if (item.pagesFollow) switchover.toPostcopy();
        switchover.tell({ type: 'state-complete' });
        return;
      case 'end':
        return;
    }
  }

  #enterSwitchover(): void {
    const { account } = this.#options;
    if (!account.times.ran) account.enter('switchover');
  }
}
