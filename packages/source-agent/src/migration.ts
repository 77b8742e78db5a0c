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
import { byHand } from '@vmferry/engine/by-hand';
import type { ErrorReport } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { SourceItem } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import type { SourceLimits } from '@vmferry/engine/switchover/source-state';
import { Account } from './account.ts';
import { Causes } from './causes.ts';
import { Ending } from './ending.ts';
import { knownCode } from './failures.ts';
import type { SourceGuestFactory } from './guests.ts';
import { LastFigures } from './last-figures.ts';
import { PeerNews } from './peer-news.ts';
import { type Departure, Preflight } from './preflight.ts';
import { Switchover } from './switchover.ts';
import { Traffic } from './traffic.ts';
import { Watch } from './watch.ts';

/** Each has its default. */
export interface MigrationLimits {
  readonly switchoverLimits?: SourceLimits;
  /** After so many milliseconds without a page taken a post-copy counts as halted; disks that do not come likewise. */
  readonly stalledMs?: number;
  /** How long the last figures of a destination that examines nothing are waited for. */
  readonly lastFiguresMs?: number;
}

export interface MigrationOptions {
  readonly id: string;
  readonly request: MigrateRequest;
  readonly agent: SourceAgentOptions;
  readonly guests: SourceGuestFactory;
  readonly limits: MigrationLimits;
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
    this.#lastFigures = new LastFigures(options.limits.lastFiguresMs);
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
    return await this.#migrate(departure);
  }

  async #refused(error: unknown): Promise<MigrationReport> {
    const report = this.#preflight.refusalOf(error);
    if (report.code === 'E_INTERNAL') this.#log.error({ err: error }, 'preflight');
    await this.#preflight.close();
    return this.#end(report.code === 'E_CANCELLED' ? 'cancelled' : 'refused', report);
  }

  async #migrate(departure: Departure): Promise<MigrationReport> {
    const { request } = this.#options;
    const { switchoverLimits: limits } = this.#options.limits;
    const [account, causes, log] = [this.#account, this.#causes, this.#log];
    const { guest, destGuest = guest } = request;
    const hands = { here: byHand(guest), there: byHand(destGuest) };
    const stopTraffic = (why: string): void => this.#traffic?.stop(why);
    const switchover = new Switchover({
      ...{ departure, request, hands, account, causes, log, stopTraffic },
      ...(limits ? { limits } : {}),
    });
    const ending = new Ending({ departure, hands, account, causes, switchover, log, stopTraffic });
    this.#switchover = switchover;
    switchover.begin();
    // Not awaited: the end may come before all is set up.
    this.#setUp(departure, switchover).catch((error: unknown) => switchover.fail(error));
    const report = await switchover.outcome;
    const completed = report.outcome === 'completed';
    const damage = completed ? await this.#takeLastFigures(departure) : undefined;
    if (completed) account.enter('completion');
    const ended = await ending.bringAbout(report);
    // All was done as it should be, and the guest is not what it was: that is for an operator.
    if (damage) return this.#end('attention', damage);
    const { outcome, code } = ended;
    return this.#end(outcome, code === null ? null : causes.explain(ended, code, account.phase));
  }

  async #setUp(departure: Departure, switchover: Switchover): Promise<void> {
    const { agent, request } = this.#options;
    const { stalledMs } = this.#options.limits;
    const { bufferBytes } = agent.limits ?? defaultLimits();
    this.#account.enter('setup');
    const [account, causes, lastFigures] = [this.#account, this.#causes, this.#lastFigures];
    const traffic = new Traffic({ departure, request, bufferBytes, account, switchover });
    this.#traffic = traffic;
    new PeerNews({ departure, account, causes, lastFigures, switchover, traffic }).listen();
    void departure.guest.gone.then((error) => switchover.guestGone(error));
    const watch = new Watch({
      ...{ departure, request, account, lastFigures, switchover, traffic, stalledMs },
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
    const { copyStorage = 'none' } = this.#request;
    watch.setUpBegins({ copies: copyStorage !== 'none' });
    void destination.carryAll(guest.sideConnections, this.#log);
    const comparing = destination.compareClocks();
    comparing.catch(() => {});
    const items = await guest.open(plan, destination.session);
    watch.memoryBegins();
    await comparing;
    return items;
  }

  /** Gives what is wrong with the guest, if anything. */
  async #takeLastFigures({ destination }: Departure): Promise<ErrorReport | undefined> {
    const message = await this.#lastFigures.wait(destination.control.link.closed);
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

  #end(outcome: Outcome, error: ErrorReport | null): MigrationReport {
    this.#watch?.stop();
    const report = this.#account.end(outcome, error);
    this.#log.info(
      { outcome, totalMs: report.totalMs, downtimeMs: report.downtimeMs, error },
      'migration ended',
    );
    return report;
  }
}
