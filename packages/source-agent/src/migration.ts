/**
 * One migration as the source sees it.
 *
 *     connect ─▶ preflight ─▶ setup ─▶ precopy ─▶ switchover ─▶ (postcopy) ─▶ completion
 *        └── nothing was touched: refused ─┘ └── the switchover machine decides what a failure means ──▶
 *
 * Up to `setup` a failure refuses the migration and leaves no trace. From there on the engine's machine is
 * told everything that happens and decides, and its decisions are carried out (`switchover.ts`).
 */
import { defaultLimits, type SourceAgentOptions } from '@vmferry/agent-core/config';
import { type Logger, migrationLogger } from '@vmferry/agent-core/log';
import { endOf, type MigrationSummary, type RunningMigration } from '@vmferry/agent-core/operations';
import type { ErrorReport, GuestError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { SourceItem } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import type { SourceLimits } from '@vmferry/engine/switchover/source';
import { Account } from './account.ts';
import { Causes } from './causes.ts';
import { factsOf, knownCode } from './failures.ts';
import type { SourceGuestFactory } from './guests.ts';
import { LastFigures } from './last-figures.ts';
import { PeerNews } from './peer-news.ts';
import { type Departure, Preflight } from './preflight.ts';
import { Switchover } from './switchover.ts';
import { Traffic } from './traffic.ts';
import { Watch } from './watch.ts';

/** Between two tries to let a guest run again that would not. */
const RETRY_MS = 5000;
const HALTED =
  'Bring both agents and the link between them back, then finish it with "vmferry resume". Never let the guest run on the source.';
/** Of a post-copy that was given up before its commit: only the destination can know whether it could be finished. */
const HALTED_EARLY =
  'The source cannot take the guest back. Where the destination had loaded it, its agent has let it run: if "virsh domstate --reason" says "running (post-copy failed)" there, finish it with "vmferry resume". If the domain is not there, what it had in memory is lost: destroy it on the source and start it from its disks.';

export interface MigrationOptions {
  readonly id: string;
  readonly request: MigrateRequest;
  readonly agent: SourceAgentOptions;
  readonly guests: SourceGuestFactory;
  readonly switchoverLimits?: SourceLimits;
  /** After so many milliseconds without a page taken a post-copy counts as halted. */
  readonly stalledMs?: number;
  /** How long the last figures of a destination that examines nothing are waited for. */
  readonly lastFiguresMs?: number;
}

export class SourceMigration implements RunningMigration {
  readonly done: Promise<MigrationReport>;
  readonly #options: MigrationOptions;
  readonly #request: MigrateRequest;
  readonly #startedAt = Date.now();
  readonly #account: Account;
  readonly #causes = new Causes();
  readonly #lastFigures: LastFigures;
  readonly #preflight: Preflight;
  #log: Logger;
  #departure: Departure | undefined;
  #switchover: Switchover | undefined;
  #traffic: Traffic | undefined;
  #watch: Watch | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #cancelled = false;

  constructor(options: MigrationOptions) {
    this.#options = options;
    this.#request = options.request;
    this.#account = new Account({
      request: options.request,
      clock: () => this.#departure?.destination.clock,
      wireBytes: () => this.#traffic?.wireBytes ?? 0,
      link: () => this.#preflight.link,
    });
    this.#lastFigures = new LastFigures(options.lastFiguresMs);
    this.#log = migrationLogger(options.agent.log, { session: options.id, guest: options.request.guest });
    const { agent, guests, request } = options;
    this.#preflight = new Preflight({
      ...{ request, agent, guests },
      onPhase: (phase) => this.#account.enter(phase),
      onConnected: (session) => {
        this.#log = migrationLogger(agent.log, { session, guest: request.guest });
      },
      note: (text) => this.#account.note(text),
    });
    this.done = this.#run();
  }

  get summary(): MigrationSummary {
    return {
      id: this.#options.id,
      role: 'source',
      guest: this.#request.guest,
      peer: this.#request.to,
      strategy: this.#account.strategy,
      phase: this.#account.phase,
      startedAt: this.#startedAt,
      ...endOf(this.#startedAt, this.#account.report),
    };
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.#account.events();
  }

  cancel(): void {
    this.#cancelled = true;
    this.#preflight.cancel();
    this.#switchover?.tell({ type: 'cancel' });
  }

  /** The agent ends: what needs an operator has kept its link. */
  async disconnect(): Promise<void> {
    await this.#departure?.destination.close();
  }

  async #run(): Promise<MigrationReport> {
    // Whoever started the migration gets to observe it first.
    await Promise.resolve();
    this.#account.emit({
      type: 'started',
      id: this.#options.id,
      guest: this.#request.guest,
      to: this.#request.to,
    });
    let departure: Departure;
    try {
      departure = await this.#preflight.run();
    } catch (error) {
      return await this.#refused(error);
    }
    this.#departure = departure;
    const report = await this.#migrate(departure);
    return await this.#finish(report);
  }

  async #refused(error: unknown): Promise<MigrationReport> {
    const report = this.#preflight.refusalOf(error);
    if (report.code === 'E_INTERNAL') this.#log.error({ err: error }, 'preflight');
    await this.#preflight.close();
    return this.#build(report.code === 'E_CANCELLED' ? 'cancelled' : 'refused', report);
  }

  // ── the migration itself ──

  async #migrate(departure: Departure): Promise<SwitchoverReport> {
    const { switchoverLimits } = this.#options;
    const switchover = new Switchover({
      departure,
      request: this.#request,
      account: this.#account,
      causes: this.#causes,
      log: this.#log,
      ...(switchoverLimits ? { limits: switchoverLimits } : {}),
      stopTraffic: () => this.#traffic?.stop('the migration was given up'),
    });
    this.#switchover = switchover;
    void switchover.mended.then((report) => this.#mended(report)).catch((error) => switchover.fail(error));
    switchover.begin();
    // Not awaited: the end may come before all is set up.
    this.#setUp(departure, switchover).catch((error: unknown) => switchover.fail(error));
    return await switchover.outcome;
  }

  async #setUp(departure: Departure, switchover: Switchover): Promise<void> {
    const { agent, request, stalledMs } = this.#options;
    const { deadlineMs } = request;
    const { bufferBytes } = agent.limits ?? defaultLimits();
    this.#account.enter('setup');
    const [account, causes, lastFigures] = [this.#account, this.#causes, this.#lastFigures];
    const traffic = new Traffic({ departure, request, bufferBytes, account, switchover });
    this.#traffic = traffic;
    new PeerNews({ departure, account, causes, lastFigures, switchover, traffic }).listen();
    void departure.guest.gone.then((error) => this.#onGone(error));
    const watch = new Watch({
      ...{ departure, account, lastFigures, switchover, traffic, deadlineMs, stalledMs },
    });
    this.#watch = watch;
    const items = await this.#getReady(departure, switchover, watch);
    if (!items || switchover.state.phase !== 'copying') return;
    if (this.#cancelled) {
      switchover.tell({ type: 'cancel' });
      return;
    }
    this.#account.enter('precopy');
    this.#account.firstRound();
    watch.begin();
    await traffic.begin(items);
  }

  /** Where only the way to the guest is gone, the guest's hypervisor lives: it needs nobody to send the rest. */
  #onGone(error: GuestError): void {
    const { code, message: why } = error;
    const committed =
      this.#switchover?.state.phase === 'committed' || this.#switchover?.state.phase === 'finishing';
    if (committed && code === 'E_GUEST_UNREACHABLE') {
      this.#account.note(`After the commit: ${why}. The migration went on without it.`);
      return;
    }
    this.#causes.met(factsOf(error));
    this.#switchover?.tell({ type: code === 'E_GUEST_GONE' ? 'guest-gone' : 'failed', code, why });
  }

  /** Both hypervisors get ready at the same time, unless they speak to each other: nothing of the guest is read before. */
  async #getReady(
    { guest, destination, plan }: Departure,
    switchover: Switchover,
    watch: Watch,
  ): Promise<AsyncIterable<SourceItem> | undefined> {
    if (!guest.sideConnections) {
      const [items] = await Promise.all([guest.open(plan, destination.session), destination.start()]);
      return items;
    }
    await destination.start();
    if (switchover.state.phase !== 'copying') return undefined;
    if ((this.#request.copyStorage ?? 'none') !== 'none') watch.beginWithDisks();
    void destination.carryAll(guest.sideConnections, this.#log);
    const comparing = destination.compareClocks();
    comparing.catch(() => {});
    const items = await guest.open(plan, destination.session);
    await comparing;
    return items;
  }

  // ── the end ──

  async #finish(report: SwitchoverReport): Promise<MigrationReport> {
    const { outcome } = report;
    const damage = outcome === 'completed' ? await this.#takeLastFigures() : undefined;
    if (outcome === 'completed') this.#account.enter('completion');
    if (outcome !== 'attention') this.#switchover?.stop();
    // As long as the link holds, the destination may still ask for what is here.
    if (outcome !== 'attention' || this.#departure?.destination?.control.link.state !== 'open')
      this.#traffic?.stop('the migration is over');
    // An unfinished post-copy keeps its sockets: to close them would only add a second fault.
    await this.#departure?.journal.close();
    const halted = outcome === 'attention' && this.#canBeFinishedLater(report);
    if (outcome !== 'attention') await this.#letGo(outcome === 'completed');
    else if (halted) await this.#suspend();
    else this.#tryAgain();
    // All was done as it should be, and the guest is not what it was: that is for an operator.
    if (damage) return this.#build('attention', damage);
    const early = this.#switchover?.state.phase === 'rolling-back';
    const ended = halted ? { ...report, remedy: early ? HALTED_EARLY : HALTED } : report;
    return this.#build(
      outcome,
      report.code === null ? null : this.#causes.explain(ended, report.code, this.#account.phase),
    );
  }

  /**
   * A guest that does not run again is most often kept from its disks by a destination that has not ended yet. The
   * operator was told; should it end later, the guest is not to stand still until somebody comes.
   */
  #tryAgain(): void {
    if (this.#switchover?.state.phase !== 'rolling-back') return;
    this.#retryTimer = setInterval(() => this.#switchover?.tell({ type: 'retry' }), RETRY_MS).unref();
  }

  /** What needed an operator has come to its end after all; the report is out, and is not taken back. */
  async #mended({ outcome, why }: SwitchoverReport): Promise<void> {
    clearInterval(this.#retryTimer);
    this.#switchover?.stop();
    this.#log.info({ outcome, why }, 'the migration that needed an operator has ended');
    await this.#letGo(outcome === 'completed');
  }

  /** A post-copy that nothing here brings on any more, of a guest whose hypervisors can finish it another time. */
  #canBeFinishedLater({ code }: SwitchoverReport): boolean {
    if (!this.#departure?.guest.suspend || this.#switchover?.state.mode !== 'postcopy') return false;
    // Of a link that breaks, one stream may be the first to know.
    const linked = this.#departure?.destination?.control.link.state === 'open' && code !== 'E_LINK_LOST';
    // A destination that says that the guest runs there, and fails, has left it halted.
    if (this.#causes.peer?.guestRunsOn === 'dest') return true;
    const stalled = code === 'E_STALLED' && this.#switchover.state.phase !== 'committed';
    return !linked || stalled || this.#switchover.state.phase === 'rolling-back';
  }

  async #suspend(): Promise<void> {
    this.#traffic?.stop('the migration is over');
    this.#switchover?.stop();
    try {
      await this.#departure?.guest.suspend?.();
    } catch (error) {
      this.#account.note(`The source's hypervisor did not come to a halt: ${factsOf(error).message}`);
    }
    await this.#departure?.destination?.close();
  }

  /** Gives what is wrong with the guest, if anything. */
  async #takeLastFigures(): Promise<ErrorReport | undefined> {
    const message = await this.#lastFigures.wait(this.#departure!.destination.control.link.closed);
    if (!message) {
      this.#account.note("The destination's last figures (faults, announcements) did not arrive.");
      return undefined;
    }
    this.#account.completed(message);
    const { damage } = message;
    if (!damage) return undefined;
    const { message: words, remedy } = damage;
    return {
      code: knownCode(damage.code),
      message: words,
      side: 'dest',
      phase: 'completion',
      guestRunsOn: 'dest',
      remedy,
    };
  }

  async #letGo(completed: boolean): Promise<void> {
    const { control } = this.#departure!.destination;
    if (completed && control.link.state === 'open') control.send({ type: 'goodbye' });
    // A monitor that is closed at once loses the command that ends its hypervisor.
    await this.#switchover?.forgotten;
    await this.#departure?.guest.close();
    await this.#departure?.destination?.close();
  }

  #build(outcome: Outcome, error: ErrorReport | null): MigrationReport {
    this.#watch?.stop();
    const report = this.#account.end(outcome, error);
    this.#log.info(
      { outcome, totalMs: report.totalMs, downtimeMs: report.downtimeMs, error },
      'migration ended',
    );
    return report;
  }
}
