/**
 * The guest that leaves: QEMU is told to migrate to a local socket, and what it writes there becomes items.
 *
 *     idle ── open ──▶ precopy ── switchover ──────────▶ sealed (QEMU completed, guest in postmigrate)
 *                         │                                 │
 *                         └── startPostcopy ──▶ postcopy ───┴── the destination ran ──▶ forgotten
 *                         ▲                        │
 *     rollback: cancel ───┘   drain, shut, cont ◀──┘
 *
 * QEMU cannot give up once it is in post-copy. It can finish, though: everything that is left is read and
 * thrown away, QEMU believes that the destination has it, and stops with the guest's memory and disks as
 * they were. From there `cont` takes the guest back, as long as the destination never ran.
 */
import { GuestError } from '@vmferry/engine/errors';
import type {
  GuestDescription,
  Lane,
  PageBatch,
  PageRange,
  RamBlock,
  RunState,
  SourceGuest,
  SourceItem,
  SourcePlan,
  SourceProgress,
} from '@vmferry/engine/guest';
import { type BytesPerSec, bytes, bytesPerSec, PAGE_BYTES, round } from '@vmferry/engine/units';
import { sourceBlockers } from './inspect/blockers.ts';
import { MigrationSettings, merged, sourceSettings, type WantedSettings } from './inspect/capabilities.ts';
import { sampleDirtyRate } from './inspect/dirty-rate.ts';
import { describeGuest } from './inspect/guest.ts';
import { locateBlocks } from './inspect/memory-map.ts';
import { takeBackLeft } from './left-source.ts';
import { isLost, outlives, whyLost } from './lost-monitor.ts';
import { type Found, setLeavingMark, takeLeavingMark } from './mark.ts';
import { listenForQemu, type MigrationListener } from './migration-socket.ts';
import { isOver, migrationStatus } from './migration-status.ts';
import { isInPostcopy, OutgoingMigration } from './outgoing-migration.ts';
import { OutgoingStream } from './outgoing-stream.ts';
import { QmpClient } from './qmp/client.ts';
import { asGuestError, isClosed, isRefusal } from './qmp/errors.ts';
import { migrateReply, typed } from './qmp/schema.ts';
import { restingState, runAgain } from './run-again.ts';
import { endedIn, isEnded, RunStateWatch } from './run-state.ts';

/** The largest downtime that QEMU takes (2000 s): whatever is left is then small enough to switch over. */
const SWITCH_NOW_MS = 2_000_000;
/**
 * The smallest: QEMU goes on with rounds until it could send what is left within this, and vmferry's policy
 * decides.
 */
const KEEP_GOING_MS = 1;
/** QEMU reads the dirty log only when it has stopped the guest, at the end of the first round. */
const ONE_ROUND_MS = 0;
/** Far above any link: the agent's reading is what limits QEMU. */
const UNLIMITED = 1e12;
const STAYS_POSTMIGRATE =
  'The guest was paused and is whole, and its QEMU now calls it "postmigrate". It runs on with cont. QEMU moves it again only after that: to move it paused, send cont and stop to its monitor at a moment when it may run, then start the migration again.';

export class QemuSourceGuest implements SourceGuest {
  readonly gone: Promise<GuestError>;
  remark: string | undefined;
  readonly #client: QmpClient;
  readonly #name: string;
  readonly #settings: MigrationSettings;
  readonly #migration: OutgoingMigration;
  readonly #runs: RunStateWatch;
  /** Why the monitor is lost, and whether QEMU is gone with it. */
  readonly #lost: Promise<GuestError>;
  #stream: OutgoingStream | undefined;
  /** As `describe` found them. */
  #blocks: readonly RamBlock[] = [];
  #session = '';
  #oneLiveRound = false;
  #pid: number | undefined;
  #closed = false;
  #givenUp = false;
  /** As the mark says it, once there is one. */
  #found: Found | undefined;
  /** The mark is being brought up to date. Never rejects. */
  #marking: Promise<void> = Promise.resolve();
  /** Settled when `open` has come to its end, whichever way. */
  #opening: Promise<unknown> = Promise.resolve();
  #unsubscribe = () => {};

  /** @throws GuestError when the monitor cannot be had */
  static async connect(path: string): Promise<QemuSourceGuest> {
    try {
      return new QemuSourceGuest(await QmpClient.connect(path), `qemu:${path}`);
    } catch (error) {
      throw asGuestError(error);
    }
  }

  private constructor(client: QmpClient, name: string) {
    this.#client = client;
    this.#name = name;
    this.#settings = new MigrationSettings(client);
    this.#migration = new OutgoingMigration(client);
    let resolveEnded: (error: GuestError) => void = () => {};
    const ended = new Promise<GuestError>((resolve) => {
      resolveEnded = resolve;
    });
    this.#runs = new RunStateWatch(client, {
      stopped: (atMs) => this.#stream?.guestStopped({ type: 'stopped', atMs }),
      changed: (running) => this.#markAgain(running),
      ended: resolveEnded,
    });
    this.#lost = whyLost(client, () => this.#outlivesItsMonitor());
    this.gone = Promise.race([this.#lost, ended]);
  }

  /** Known once it has connected. One that ends is gone soon after its monitor. */
  async #outlivesItsMonitor(): Promise<boolean> {
    return !this.#closed && this.#pid !== undefined && (await outlives(this.#pid));
  }

  async describe(): Promise<GuestDescription> {
    const description = await this.#asking(() => describeGuest(this.#client, this.#name));
    this.#runs.found(description.running);
    this.#oneLiveRound = description.oneLiveRound;
    this.#blocks = description.blocks;
    return description;
  }

  blockers(plan: SourcePlan): Promise<readonly GuestError[]> {
    return this.#asking(() => sourceBlockers(this.#client, { postcopy: plan.postcopy }));
  }

  open(plan: SourcePlan, session: string): Promise<AsyncIterable<SourceItem>> {
    const opened = this.#open(plan, session);
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(plan: SourcePlan, session: string): Promise<AsyncIterable<SourceItem>> {
    this.#session = session;
    const listener = await listenForQemu();
    try {
      return await this.#asking(() => this.#start(plan, listener));
    } finally {
      await listener.close();
    }
  }

  async #start(plan: SourcePlan, listener: MigrationListener): Promise<AsyncIterable<SourceItem>> {
    // Each answer takes a while from a QEMU whose guest is busy: as few as will do, none waited for twice.
    const locating = plan.postcopy ? this.#locateMemory() : Promise.resolve(new Map<string, number>());
    locating.catch(() => {});
    const settings = await this.#settings.read();
    this.#found = { running: this.#runs.running, settings };
    await Promise.all([
      // QEMU takes commands in their order: it is marked before anything is changed.
      setLeavingMark(this.#client, this.#session, this.#found),
      this.#settings.apply(this.#wantedSettings(plan), settings),
    ]);
    const addresses = await locating;
    const stream = new OutgoingStream({
      plan,
      progress: () => this.progress(),
      completed: () => this.#completed(),
    });
    this.#stream = stream;
    this.#followPasses(stream);
    const socket = await this.#migration.begin(listener);
    this.#pid = socket.peerPid;
    stream.begin({ socket, pid: this.#pid, addresses });
    return stream.items();
  }

  #wantedSettings(plan: SourcePlan): WantedSettings {
    const parameters = {
      'downtime-limit': this.#oneLiveRound ? ONE_ROUND_MS : KEEP_GOING_MS,
      'max-bandwidth': UNLIMITED,
      ...(plan.postcopy ? { 'max-postcopy-bandwidth': 0 } : {}),
    };
    const limits = { capabilities: {}, parameters, required: Object.keys(parameters) };
    return merged(sourceSettings(plan.postcopy, plan.throttle), limits);
  }

  /** What cannot be found is asked of QEMU, page by page. */
  async #locateMemory(): Promise<ReadonlyMap<string, number>> {
    try {
      return await locateBlocks(this.#client, this.#blocks);
    } catch (error) {
      if (isRefusal(error)) return new Map();
      throw error;
    }
  }

  #followPasses(stream: OutgoingStream): void {
    let firstPass: number | undefined;
    this.#unsubscribe = this.#client.on('MIGRATION_PASS', (event) => {
      this.#runs.passBegan();
      const pass = Number(event.data['pass']);
      // QEMU 11.1 tells of no first pass and calls the one that it begins with the second.
      firstPass ??= pass;
      void stream.passBegan(pass - firstPass + 1);
    });
  }

  /** What a restarted agent finds is how the guest stood last. */
  #markAgain(running: boolean): void {
    if (!this.#found || this.#givenUp) return;
    this.#found = { ...this.#found, running };
    const taken = takeLeavingMark(this.#client, this.#session);
    const set = setLeavingMark(this.#client, this.#session, this.#found);
    // A monitor that died is told by `gone`.
    this.#marking = Promise.all([this.#marking, taken, set]).then(
      () => {},
      () => {},
    );
  }

  async runState(): Promise<RunState> {
    return await this.#asking(() => this.#runs.settled());
  }

  async #completed(): Promise<void> {
    // Without its monitor a QEMU in post-copy cannot be asked; the destination knows whether all has come.
    if (this.#client.isClosed && this.#stream?.postcopy && isLost(await this.#lost)) return;
    await this.#asking(() => this.#migration.completed());
  }

  takePages(range: PageRange): PageBatch | 'sent' | undefined {
    return this.#stream?.takePages(range);
  }

  async progress(): Promise<SourceProgress> {
    const { ram } = await this.#asking(() => typed(this.#client, 'query-migrate', migrateReply));
    return {
      round: this.#stream?.round ?? round(0),
      remainingBytes: bytes(ram?.remaining ?? 0),
      dirtyBytesPerSec: bytesPerSec((ram?.['dirty-pages-rate'] ?? 0) * (ram?.['page-size'] ?? PAGE_BYTES)),
    };
  }

  measureDirtyRate(seconds?: number): Promise<BytesPerSec | undefined> {
    return this.#asking(() => sampleDirtyRate(this.#client, seconds));
  }

  async switchover(): Promise<void> {
    await this.#asking(() => this.#settings.setParameters({ 'downtime-limit': SWITCH_NOW_MS }));
  }

  async startPostcopy(): Promise<void> {
    await this.#asking(() => this.#client.execute('migrate-start-postcopy'));
  }

  async letsGo(): Promise<void> {
    const stream = this.#stream;
    if (!stream?.postcopy) return;
    await this.#asking(() => this.#migration.letsGo(stream));
  }

  requestPages(ranges: readonly PageRange[], lane: Lane): void {
    this.#stream?.requestPages(ranges, lane);
  }

  deliverReply(reply: Uint8Array): void {
    this.#stream?.deliverReply(reply);
  }

  setPace(contentBytesPerSec: BytesPerSec): void {
    this.#stream?.setPace(contentBytesPerSec);
  }

  async setThrottle(percent: number): Promise<void> {
    const step = Math.max(1, percent);
    await this.#asking(() =>
      this.#settings.setParameters({
        'max-cpu-throttle': step,
        'cpu-throttle-increment': step,
        'throttle-trigger-threshold': percent > 0 ? 1 : 100,
      }),
    );
  }

  async rollback(): Promise<void> {
    this.#givenUp = true;
    this.#stream?.giveUp();
    // What is half begun cannot be ended: it would begin after its end.
    await this.#opening;
    try {
      await this.#asking(() => this.#takeBackHere());
    } catch (error) {
      if (!this.#client.isClosed) throw error;
      await this.#takeBackAnew();
    }
  }

  async #takeBackHere(): Promise<void> {
    if (this.#stream) await this.#giveUp(this.#stream);
    const status = await this.#takeBack();
    await this.#settings.restore();
    await this.#marking;
    await takeLeavingMark(this.#client, this.#session);
    if (isEnded(status)) throw endedIn(status);
  }

  /** As an agent that is started again does: QEMU has lost its migration's socket, and has another connection for us. */
  async #takeBackAnew(): Promise<void> {
    const lost = await this.#lost;
    if (!isLost(lost)) throw lost;
    this.#stream?.cut();
    const back = await takeBackLeft(this.#client.path, this.#session);
    if (back.found !== 'here') {
      const { cause, message, remedy } = lost;
      throw new GuestError(lost.code, message, back.found === 'kept' ? back.remedy : remedy, { cause });
    }
    if (isEnded(back.status)) throw endedIn(back.status);
    if (back.status === 'postmigrate') this.remark = STAYS_POSTMIGRATE;
  }

  /**
   * While QEMU writes with the guest stopped, it leaves its monitor unanswered: what it writes is read all the
   * time. A post-copy is let finish into nothing.
   */
  async #giveUp(stream: OutgoingStream): Promise<void> {
    const drained = stream.drain({ finishes: true });
    const status = await migrationStatus(this.#client);
    if (stream.postcopy || isInPostcopy(status)) await drained;
    else if (!isOver(status)) await this.#client.execute('migrate_cancel');
    await this.#migration.settled();
    stream.cut();
    await drained;
  }

  /** Lets the guest run if it ran before, and makes sure that it does. Gives its run state. */
  async #takeBack(): Promise<string> {
    const { running } = await this.#runs.settled();
    if (running) {
      await runAgain(this.#client);
      return 'running';
    }
    const status = await restingState(this.#client);
    // QEMU leaves the state after a migration only by running the guest or by a reset, whatever the guest was
    // before, and a paused guest is not to be run without being asked for.
    if (status === 'postmigrate') this.remark = STAYS_POSTMIGRATE;
    return status;
  }

  async forget({ destroy }: { destroy: boolean }): Promise<void> {
    this.#unsubscribeAll();
    if (!destroy) {
      await this.#asking(async () => {
        await this.#settings.restore();
        await takeLeavingMark(this.#client, this.#session);
      });
      return;
    }
    try {
      await this.#client.execute('quit');
    } catch (error) {
      if (!isClosed(error)) throw asGuestError(error);
      const lost = await this.#lost;
      if (isLost(lost)) throw lost;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unsubscribeAll();
    this.#stream?.close();
    await this.#client.close();
  }

  #unsubscribeAll(): void {
    this.#runs.close();
    this.#migration.close();
    this.#unsubscribe();
  }

  async #asking<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isClosed(error)) throw await this.#lost;
      throw asGuestError(error);
    }
  }
}
