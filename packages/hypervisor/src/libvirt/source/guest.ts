/**
 * The guest that leaves, where libvirt keeps it: libvirt migrates it peer-to-peer, to sockets of the agent's.
 *
 *     libvirtd ── its calls ──▶ SOCKETS/rpc ─ tunnel ─▶ the destination's libvirtd
 *     QEMU ──── the disks ────▶ SOCKETS/nbd ─ tunnel ─▶ the destination's QEMU
 *     QEMU ── the guest's RAM and state ─▶ SOCKETS/ram ─ items ─▶ the destination's QEMU
 *
 * Who owns the domain is libvirt's to say. Before post-copy it takes the guest back whenever it hears no good answer to
 * its call to finish. So that answer is here before the commit, kept from libvirt, and given to it when the commit is on
 * disk: no link is needed for it. Once in post-copy libvirt never takes the guest back: the domain is then paused here
 * until the migration is finished, which may be tried again.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestError } from '@vmferry/engine/errors';
import { EventQueue } from '@vmferry/engine/event-queue';
import type {
  GuestDescription,
  Lane,
  ManagedPlan,
  PageBatch,
  PageRange,
  RamBlock,
  SideConnection,
  SourceGuest,
  SourceItem,
  SourcePlan,
  SourcePreflight,
  SourceProgress,
} from '@vmferry/engine/guest';
import { type BytesPerSec, bytes, bytesPerSec, millis, PAGE_BYTES, round } from '@vmferry/engine/units';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain, MigrateOptions } from '@vmferry/native/libvirt/domain';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { LocalListener, type LocalSocket } from '@vmferry/native/local-socket';
import { describeGuest } from '../../qemu/inspect/guest.ts';
import { locateBlocks } from '../../qemu/inspect/memory-map.ts';
import { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import { answerOf, doneAnewIfLost, letGo, openLibvirt } from '../answer.ts';
import {
  DomainEvents,
  type DomainHappening,
  type MigrationEnding,
  migrationEnding,
} from '../domain-events.ts';
import { machineOf, readInterfaces } from '../domain-xml.ts';
import { asGuestError, asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import { monitorOf } from '../monitor.ts';
import { type LibvirtOptions, parseDomainAddress } from '../options.ts';
import type { DomainFacts } from '../preflight/domain-facts.ts';
import { type Finding, notes, refusals } from '../preflight/finding.ts';
import { gatherDomain, type SourceHost, sourceHost } from '../preflight/gather-domain.ts';
import { sourceFindings } from '../preflight/preflight.ts';
import { reconnect } from '../reconnect.ts';
import { Rendezvous } from '../rendezvous.ts';
import { CallingRpc } from '../rpc/relay.ts';
import { withAddresses } from './domain-addresses.ts';
import {
  busy,
  callsLost,
  cannotKeep,
  daemonGone,
  diskFailed,
  diskLost,
  givenUp,
  gone,
  hungUp,
  notSetBack,
  stands,
  stuckInPostcopy,
  unfinished,
} from './faults.ts';
import { type Attempt, finish, left } from './finishing.ts';
import { migrateOptions, PLAIN, resumeOptions } from './migrate-options.ts';
import { qemuPid } from './qemu-process.ts';
import { untilStuck } from './set-up.ts';
import { newRendezvous } from './tokens.ts';

/** The largest downtime that QEMU takes (2000 s): whatever is left is then small enough to switch over. */
const SWITCH_NOW_MS = 2_000_000;
/** The smallest: QEMU goes on with rounds until vmferry's policy decides. */
const KEEP_GOING_MS = 1;
/** QEMU reads the dirty log only when it has stopped the guest, at the end of the first round. */
const ONE_ROUND_MS = 0;
/** Post-copy can be started once libvirt has begun the job. */
const START_POSTCOPY_MS = 10_000;
const RETRY_MS = 10;
/** From the break of libvirt's connection to what else there is to know of it. */
const TOLD_MS = 1000;
/** From the end of a disk's connection to the news of the destination's QEMU, should it be that which has ended. */
const DISK_TOLD_MS = 200;
/** From the word that the migration is given up to its end, before libvirt's calls are cut off. */
const ABORT_MS = 1000;
const SETTLE_TIMEOUT_MS = 60_000;
/** From a libvirtd's restart to its having settled what it left. */
const RESTARTED_MS = 10_000;
const SETTLE_POLL_MS = 200;

export class LibvirtSourceGuest implements SourceGuest {
  readonly gone: Promise<GuestError>;
  /** Another one once libvirtd was restarted, and the domain with it. */
  #connection: LibvirtConnection;
  #domain: Domain;
  readonly #uri: string;
  readonly #events: DomainEvents;
  readonly #options: LibvirtOptions;
  readonly #rendezvousName = newRendezvous();
  readonly #side = new EventQueue<SideConnection>();
  readonly #rpc = new Set<CallingRpc>();
  readonly #servers: Server[] = [];
  readonly #local = new Set<Socket>();
  #rendezvous: Rendezvous | undefined;
  /** Of a post-copy that is being finished. */
  #ram: Socket | undefined;
  #memoryBegan = false;
  /** The disks'. */
  readonly #nbd = new Set<Socket>();
  #diskClosed = false;
  #stream: OutgoingStream | undefined;
  #blocks: readonly RamBlock[] = [];
  /** For preflight. */
  readonly #host: Promise<SourceHost>;
  #facts: Promise<DomainFacts> | undefined;
  #oneLiveRound = false;
  #wasRunning = true;
  #downtimeMs: bigint | undefined;
  #remark: string | undefined;
  #opening: Promise<unknown> = Promise.resolve();
  /** libvirt has been asked to migrate. */
  readonly #begun: Promise<void>;
  #resolveBegun: () => void = () => {};
  /** Nothing begins any more. */
  #givenUp = false;
  /** libvirt's migration: undefined once it has gone well, or why not. Never rejects. */
  #job: Promise<unknown> | undefined;
  #jobEnded = false;
  /** How QEMU's part of it ended. */
  #qemuEnded: Promise<MigrationEnding> | undefined;
  #migrating = false;
  #undefineSource = false;
  /** The destination's libvirt has finished well, and this side's has not been told yet. */
  readonly #finishedThere: Promise<void>;
  #resolveFinishedThere: () => void = () => {};
  #resolveGone: (error: GuestError) => void = () => {};
  #unsubscribe: () => void = () => {};

  /** @throws GuestError when the domain cannot be had */
  static async connect(text: string, options: LibvirtOptions): Promise<LibvirtSourceGuest> {
    return await asking(async () => {
      const { name, uri } = parseDomainAddress(text, options.uri);
      const connection = await openLibvirt(uri);
      try {
        const domain = await connection.domainByName(name);
        const events = await DomainEvents.subscribe(connection, domain.uuid);
        return new LibvirtSourceGuest(connection, domain, events, { ...options, uri });
      } catch (error) {
        await connection.close();
        throw error;
      }
    });
  }

  private constructor(
    connection: LibvirtConnection,
    domain: Domain,
    events: DomainEvents,
    options: LibvirtOptions,
  ) {
    this.#connection = connection;
    this.#uri = options.uri;
    this.#domain = domain;
    this.#events = events;
    this.#options = options;
    this.#host = sourceHost(connection);
    this.#host.catch(() => {});
    this.#begun = new Promise((resolve) => {
      this.#resolveBegun = resolve;
    });
    this.#finishedThere = new Promise((resolve) => {
      this.#resolveFinishedThere = resolve;
    });
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
    });
    connection.once('close', (reason) => {
      if (reason !== 'client') this.#resolveGone(daemonGone(reason));
    });
    this.#unsubscribe = events.on((happening) => this.#watch(happening));
  }

  get sideConnections(): AsyncIterable<SideConnection> {
    return this.#side;
  }

  /** After a roll-back. */
  get remark(): string | undefined {
    return this.#remark;
  }

  #watch(happening: DomainHappening): void {
    if (happening.type === 'lifecycle') {
      const { event, detail } = happening.change;
      if (event !== 'stopped') return;
      if (detail !== 'migrated') this.#resolveGone(gone(`the domain ended on the source (${detail})`));
      // libvirt says good-bye to the destination's, which without a tunnel nobody answers.
      else for (const rpc of this.#rpc) if (rpc.stream.destroyed) rpc.hangUp();
      return;
    }
    if (happening.type !== 'monitor' || !this.#migrating) return;
    if (happening.event === 'STOP') {
      this.#stream?.guestStopped({ type: 'stopped', atMs: millis(happening.atMs) });
    } else if (happening.event === 'MIGRATION_PASS') {
      void this.#stream?.passBegan(Number(happening.data['pass']));
    } else if (happening.event === 'BLOCK_JOB_COMPLETED') this.#copyEnded(happening.data['error']);
  }

  async describe(): Promise<GuestDescription> {
    return await asking(async () => {
      const { name, uuid } = this.#domain;
      const state = await this.#domain.state();
      if (state.state === 'shut-off') {
        throw new GuestError(
          'E_GUEST_BLOCKED',
          `the domain ${name} does not run`,
          `start it with "virsh start ${name}", or move its definition with "virsh migrate --offline"`,
        );
      }
      const xml = await this.#domain.xml();
      // A guest's agent may take its time.
      const [own, nics] = await Promise.all([
        state.reason === 'post-copy-failed'
          ? this.#sketch(xml)
          : describeGuest(monitorOf(this.#domain), name),
        withAddresses(this.#domain, readInterfaces(xml), xml),
      ]);
      this.#blocks = own.blocks;
      this.#oneLiveRound = own.oneLiveRound;
      this.#wasRunning = state.state === 'running';
      return {
        ...own,
        kind: 'libvirt',
        nics,
        running: this.#wasRunning,
        libvirt: { uuid, socketDir: this.#options.socketDir, rendezvous: this.#rendezvousName },
      };
    });
  }

  /** Without QEMU, whose monitor libvirt keeps to itself while a post-copy is to be finished. */
  async #sketch(xml: string): Promise<GuestDescription> {
    const { vcpus, maxMemoryKib } = await this.#domain.info();
    return {
      kind: 'libvirt',
      name: this.#domain.name,
      hypervisorVersion: '',
      machine: machineOf(xml),
      vcpus,
      memoryBytes: bytes(Number(maxMemoryKib) * 1024),
      blocks: [],
      nics: [],
      running: false,
      oneLiveRound: false,
    };
  }

  async blockers(plan: SourcePlan): Promise<readonly GuestError[]> {
    return await asking(async () => {
      const { name } = this.#domain;
      const reasons = plan.managed?.keepSource === true ? [cannotKeep()] : [];
      const { reason } = await this.#domain.state();
      if (reason === 'post-copy-failed') return [...reasons, unfinished(name)];
      const { findings } = await this.#findings(plan);
      const all = [...reasons, ...refusals(findings)];
      const { type } = await this.#domain.jobInfo();
      return type === 'none' || type === 'completed' ? all : [...all, busy(name)];
    });
  }

  async preflight(plan: SourcePlan): Promise<SourcePreflight> {
    return await asking(async () => {
      const { facts, findings } = await this.#findings(plan);
      // The clocks are compared by it.
      return { facts: { ...facts, wallClockMs: Date.now() }, notes: notes(findings) };
    });
  }

  async #findings(plan: SourcePlan): Promise<{ facts: DomainFacts; findings: readonly Finding[] }> {
    const facts = await this.#gathered(plan);
    return { facts, findings: sourceFindings(facts, { postcopy: plan.postcopy }) };
  }

  /** What a migration asks for is asked for once, and its domain is looked at once: that takes libvirt a while. */
  #gathered(plan: SourcePlan): Promise<DomainFacts> {
    const { copyStorage, destName, destXml } = plan.managed ?? PLAIN;
    this.#facts ??= gatherDomain(
      this.#connection,
      this.#domain,
      { copyStorage, destName, destXml },
      this.#host,
    );
    return this.#facts;
  }

  open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    const opened = asking(() => this.#open(plan));
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    const rendezvous = await Rendezvous.make(this.#options, this.#rendezvousName);
    this.#rendezvous = rendezvous;
    const addresses = plan.postcopy ? await this.#locateMemory() : new Map<string, number>();
    const stream = new OutgoingStream({
      plan,
      progress: () => this.progress(),
      completed: () => this.#completed(),
      letsGo: () => Promise.race([this.#finishedThere, this.#failure()]),
    });
    this.#stream = stream;
    await this.#serveCalls(rendezvous, { holdAnswer: true });
    const { copied } = await this.#gathered(plan);
    if (copied.length > 0) await this.#serveSide(rendezvous, 'nbd');
    const listener = new LocalListener(rendezvous.here('ram'));
    let socket: LocalSocket | undefined;
    const begun = new AbortController();
    try {
      this.#downtimeMs = await answerOf('told the maximum downtime', this.#domain.maxDowntimeMs());
      await this.#setMaxDowntime(BigInt(this.#oneLiveRound ? ONE_ROUND_MS : KEEP_GOING_MS));
      if (this.#givenUp) throw givenUp();
      this.#migrate(plan, rendezvous, copied);
      this.#resolveBegun();
      const moved = async () => (await this.progress()).disks?.copiedBytes ?? 0;
      socket = await Promise.race([listener.accept(), this.#failure(), untilStuck(moved, begun.signal)]);
      this.#memoryBegan = true;
    } finally {
      begun.abort();
      if (!socket) listener.close();
    }
    if (!socket) throw new Error('the listener was closed');
    const pid = plan.postcopy ? await qemuPid(socket.peerPid, this.#domain) : undefined;
    stream.begin({ socket, pid, addresses });
    return stream.items();
  }

  /** What cannot be found is asked of QEMU, page by page. */
  async #locateMemory(): Promise<ReadonlyMap<string, number>> {
    try {
      return await locateBlocks(monitorOf(this.#domain), this.#blocks);
    } catch {
      return new Map();
    }
  }

  #serveCalls(rendezvous: Rendezvous, how: { readonly holdAnswer: boolean }): Promise<void> {
    return this.#serve(rendezvous.here('rpc'), (socket) => {
      // A libvirt that is answered by nobody would wait for ever.
      if (this.#givenUp) {
        socket.destroy();
        return;
      }
      const rpc = new CallingRpc(socket, how);
      this.#rpc.add(rpc);
      void this.#watchCalls(rpc);
      this.#side.push({ kind: 'rpc', stream: rpc.stream });
    });
  }

  /** libvirt itself would wait for ever: what keeps its connection answers its keepalive. */
  async #watchCalls(rpc: CallingRpc): Promise<void> {
    const first = await Promise.race([
      rpc.ended.then(() => 'ended' as const),
      rpc.held.then(() => 'held' as const),
      rpc.detached.then(() => 'detached' as const),
    ]);
    if (first === 'held') {
      this.#resolveFinishedThere();
      await rpc.ended;
      if (rpc.holds && !this.#givenUp) this.#resolveGone(hungUp());
    }
    if (first !== 'detached') return;
    // Whoever knows more of why it broke has told it by then.
    await Promise.race([this.#job, sleep(TOLD_MS, undefined, { ref: false })]);
    if (!this.#jobEnded && !this.#givenUp) this.#resolveGone(callsLost());
  }

  #serveSide(rendezvous: Rendezvous, kind: 'nbd' | 'ram'): Promise<void> {
    return this.#serve(rendezvous.here(kind), (stream) => {
      if (kind === 'ram') this.#ram = stream;
      else this.#watchDisk(stream);
      this.#side.push({ kind, stream });
    });
  }

  #watchDisk(disk: Socket): void {
    this.#nbd.add(disk);
    disk.once('close', () => {
      this.#nbd.delete(disk);
      this.#diskClosed = true;
      void this.#tellDiskLost();
    });
  }

  /**
   * Before the memory's turn no disk is done. What libvirt has to say of it comes after the end of the destination's
   * domain, which would be taken for the reason.
   */
  async #tellDiskLost(): Promise<void> {
    await Promise.race([this.#job, sleep(DISK_TOLD_MS, undefined, { ref: false })]);
    if (!this.#memoryBegan && !this.#jobEnded && !this.#givenUp) this.#resolveGone(diskLost());
  }

  /** Likewise, where QEMU says why. */
  #copyEnded(error: unknown): void {
    if (typeof error !== 'string' || this.#diskClosed || this.#givenUp) return;
    this.#resolveGone(diskFailed(error));
  }

  #cutDisks(): void {
    for (const disk of this.#nbd) disk.destroy();
  }

  async #serve(path: string, take: (socket: Socket) => void): Promise<void> {
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      this.#local.add(socket);
      socket.once('close', () => this.#local.delete(socket));
      take(socket);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // QEMU may run as another user than the agent; the directory is what keeps others out.
      server.listen({ path, writableAll: true, readableAll: true }, resolve);
    });
  }

  #migrate(plan: SourcePlan, rendezvous: Rendezvous, copied: readonly string[]): void {
    this.#migrating = true;
    this.#undefineSource = plan.managed?.undefineSource ?? false;
    this.#qemuEnded = this.#events.next(migrationEnding);
    this.#begin(rendezvous, async () =>
      migrateOptions(plan, rendezvous, { persistent: await this.#domain.isPersistent(), copied }),
    );
  }

  #begin(rendezvous: Rendezvous, options: () => Promise<MigrateOptions>): void {
    const uri = `qemu+unix:///system?socket=${rendezvous.there('rpc')}`;
    this.#job = options()
      .then((given) => this.#domain.migrateToUri(uri, given))
      .then(
        () => undefined,
        (error: unknown) => error,
      )
      .finally(() => {
        this.#jobEnded = true;
      });
  }

  /** Rejects with why libvirt has given the migration up, if it does. */
  async #failure(): Promise<never> {
    const error = await this.#job;
    throw error === undefined
      ? new GuestError('E_GUEST_FAILED', 'libvirt ended the migration early', "see libvirt's log")
      : asGuestError(error);
  }

  /** QEMU has closed its end: is all of the guest sent? libvirt's own answer comes only when the guest has moved. */
  async #completed(): Promise<void> {
    const ending = await Promise.race([this.#qemuEnded, this.#job?.then(() => undefined)]);
    if (ending === 'completed') return;
    // Without libvirtd nobody says how QEMU ended. In post-copy the destination does, which alone decides.
    if (this.#connection.closed && this.#stream?.postcopy) return;
    // What libvirt has to say of it comes with the end of its job.
    const error = await this.#job;
    throw asGuestError(
      error ?? new GuestError('E_GUEST_FAILED', 'QEMU gave the migration up', "see QEMU's log on the source"),
    );
  }

  async progress(): Promise<SourceProgress> {
    const { statistics } = await asking(() => this.#domain.job());
    const pageBytes = Number(statistics.memory_page_size ?? PAGE_BYTES);
    const { disk_total = 0n, disk_processed = 0n } = statistics;
    return {
      round: this.#stream?.round ?? round(0),
      remainingBytes: bytes(Number(statistics.memory_remaining ?? 0n)),
      dirtyBytesPerSec: bytesPerSec(Number(statistics.memory_dirty_rate ?? 0n) * pageBytes),
      ...(disk_total > 0n
        ? { disks: { copiedBytes: bytes(Number(disk_processed)), totalBytes: bytes(Number(disk_total)) } }
        : {}),
    };
  }

  /** Not while the domain migrates: libvirt has no time for it then. */
  async measureDirtyRate(seconds = 1): Promise<BytesPerSec | undefined> {
    if (this.#migrating) return undefined;
    return await asking(async () => {
      await this.#domain.startDirtyRateCalculation(seconds);
      for (let tries = 0; tries < 40 * seconds; tries += 1) {
        await sleep(50);
        const { status, mibPerSecond } = await this.#connection.dirtyRate(this.#domain);
        if (status === 'measured') return bytesPerSec((mibPerSecond ?? 0) * 1024 * 1024);
      }
      return undefined;
    });
  }

  async switchover(): Promise<void> {
    await asking(() => this.#domain.setMaxDowntimeMs(SWITCH_NOW_MS));
  }

  #setMaxDowntime(ms: bigint): Promise<void> {
    return answerOf('set the maximum downtime', this.#domain.setMaxDowntimeMs(ms));
  }

  async startPostcopy(): Promise<void> {
    const deadline = performance.now() + START_POSTCOPY_MS;
    for (;;) {
      try {
        await this.#domain.startPostCopy();
        return;
      } catch (error) {
        // libvirt has no job yet, or QEMU has not begun.
        const early =
          isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID', 'VIR_ERR_INTERNAL_ERROR') &&
          !this.#jobEnded &&
          (this.#stream?.round ?? 0) === 0;
        if (!early || performance.now() > deadline) throw asGuestError(error);
      }
      await sleep(RETRY_MS);
    }
  }

  requestPages(ranges: readonly PageRange[], lane: Lane): void {
    this.#stream?.requestPages(ranges, lane);
  }

  takePages(range: PageRange): PageBatch | 'sent' | undefined {
    return this.#stream?.takePages(range);
  }

  setPace(contentBytesPerSec: BytesPerSec): void {
    this.#stream?.setPace(contentBytesPerSec);
  }

  deliverReply(reply: Uint8Array): void {
    this.#stream?.deliverReply(reply);
  }

  async rollback(): Promise<void> {
    this.#givenUp = true;
    this.#stream?.giveUp();
    await asking(async () => {
      // What is half begun cannot be ended: it would begin after its end.
      await answerOf('begun the migration, or refused to', Promise.race([this.#opening, this.#begun]));
      await doneAnewIfLost(
        () => this.#connection,
        () => this.#rollBack(),
      );
    });
  }

  async #rollBack(): Promise<void> {
    // Without libvirtd the end of its stream is what QEMU itself takes its guest back at; while it cannot write it may
    // hear nobody, and a libvirtd that is started again would wait for it.
    if (this.#connection.closed) this.#stream?.cut();
    await this.#reach();
    if (this.#job) await this.#giveUp();
    await this.#takeBack();
    await this.#setBack();
  }

  /** The guest runs as before without it, too. */
  async #setBack(): Promise<void> {
    if (this.#downtimeMs === undefined) return;
    try {
      await this.#setMaxDowntime(this.#downtimeMs);
    } catch (error) {
      this.#remark = notSetBack(this.#downtimeMs, error);
    }
  }

  /**
   * QEMU may be writing with the guest stopped: what it writes is read all the time. Then libvirt's calls are cut off,
   * in case that it waits for an answer that does not come.
   */
  async #giveUp(): Promise<void> {
    if (await this.#isInPostcopy()) throw stuckInPostcopy(this.#domain.name);
    // libvirt waits for QEMU to end the copies, and QEMU for the answers of disks that may take nothing any more.
    setTimeout(() => this.#cutDisks(), ABORT_MS).unref();
    const drained = this.#stream?.drain();
    await answerOf('aborted the migration', this.#domain.abortJob()).catch((error: unknown) => {
      // Too late, or over: the domain's state tells.
      if (!isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID', 'VIR_ERR_NO_DOMAIN')) throw error;
    });
    await Promise.race([this.#job, sleep(ABORT_MS)]);
    for (const rpc of this.#rpc) rpc.hangUp();
    await Promise.race([this.#job, sleep(SETTLE_TIMEOUT_MS)]);
    this.#stream?.cut();
    await drained;
    this.#migrating = false;
  }

  async #isInPostcopy(): Promise<boolean> {
    if (this.#stream?.postcopy) return true;
    const reason = (await this.#stateOrGone())?.reason;
    return reason === 'post-copy' || reason === 'post-copy-failed';
  }

  /** libvirt has let the guest run again; makes sure of it. */
  async #takeBack(): Promise<void> {
    const state = await this.#settledState();
    if (state === undefined || left(state)) throw gone('the domain ended on the source');
    if (!this.#wasRunning || state.state === 'running') return;
    if (state.state !== 'paused' || state.reason === 'post-copy-failed') throw stands(state);
    await answerOf('let the domain run again', this.#domain.resume());
    const again = await answerOf("told the domain's state", this.#domain.state());
    if (again.state !== 'running') throw stands(again);
  }

  /** A libvirtd that was restarted gives the migration up by itself, in a while. */
  async #settledState(): Promise<DomainState | undefined> {
    const deadline = performance.now() + RESTARTED_MS;
    for (;;) {
      const state = await this.#stateOrGone();
      if (state?.reason !== 'migration' || performance.now() > deadline) return state;
      await sleep(SETTLE_POLL_MS);
    }
  }

  /** The libvirtd that was there when this guest was opened may have been restarted. */
  async #reach(): Promise<void> {
    if (!this.#connection.closed) return;
    const connection = await reconnect(this.#uri);
    void this.#connection.close().catch(() => {});
    this.#connection = connection;
    try {
      this.#domain = await connection.domainByUuid(this.#domain.uuid);
    } catch (error) {
      throw isLibvirtError(error, 'VIR_ERR_NO_DOMAIN') ? gone('the domain ended on the source') : error;
    }
  }

  committed(): void {
    for (const rpc of this.#rpc) rpc.letGo();
  }

  async suspend(): Promise<void> {
    this.#stream?.giveUp();
    this.#stream?.cut();
    await Promise.race([this.#job, sleep(ABORT_MS)]);
    for (const rpc of this.#rpc) rpc.hangUp();
    await Promise.race([this.#job, sleep(SETTLE_TIMEOUT_MS)]);
    await this.close();
  }

  async finishPostcopy(plan: ManagedPlan, tell: (note: string) => void): Promise<void> {
    await asking(async () => {
      const rendezvous = await Rendezvous.make(this.#options, this.#rendezvousName);
      this.#rendezvous = rendezvous;
      await this.#serveCalls(rendezvous, { holdAnswer: false });
      await this.#serveSide(rendezvous, 'ram');
      const options = resumeOptions(plan, rendezvous, { persistent: await this.#domain.isPersistent() });
      const ask = () => this.#askToFinish(rendezvous, options);
      await finish({ state: () => this.#stateOrGone(), ask }, tell);
    });
  }

  #askToFinish(rendezvous: Rendezvous, options: MigrateOptions): Attempt {
    this.#ram = undefined;
    let status: string | undefined;
    const off = this.#events.on((happening) => {
      if (happening.type === 'monitor' && happening.event === 'MIGRATION')
        status = String(happening.data['status']);
    });
    this.#begin(rendezvous, () => Promise.resolve(options));
    return {
      answer: this.#job!,
      ram: () => this.#ram,
      status: () => status,
      cut: () => {
        off();
        for (const rpc of this.#rpc) rpc.hangUp();
        this.#ram?.destroy();
      },
    };
  }

  /** libvirt ends the source's QEMU itself when the destination has answered; a few seconds, under emulation. */
  async forget(): Promise<void> {
    const error = await Promise.race([
      this.#job,
      sleep(SETTLE_TIMEOUT_MS).then(
        () =>
          new GuestError(
            'E_TIMEOUT',
            'libvirt has not ended the migration on the source',
            "see libvirt's log",
          ),
      ),
    ]);
    if (error === undefined) return;
    await asking(async () => {
      if (this.#connection.closed && (await this.#endedUnattended())) return;
      if (!left(await this.#stateOrGone())) throw error;
    });
  }

  /**
   * A libvirtd that was restarted ends the domain by itself when QEMU has sent all in post-copy. After pre-copy it does
   * not know whether the destination has run it, and leaves it paused; here that is known.
   */
  async #endedUnattended(): Promise<boolean> {
    try {
      await this.#reach();
      const state = this.#stream?.postcopy ? await this.#settledState() : await this.#stateOrGone();
      if (left(state)) return true;
      if (state?.state !== 'paused' || state.reason !== 'migration') return false;
      await ifThere(() => this.#endLeft());
      return true;
    } catch (error) {
      if (error instanceof GuestError && error.code === 'E_GUEST_GONE') return true;
      throw error;
    }
  }

  async #endLeft(): Promise<void> {
    const undefine = this.#undefineSource && (await this.#domain.isPersistent());
    await answerOf('ended the domain', this.#domain.destroy());
    if (undefine) await this.#domain.undefine(['keep-nvram']);
  }

  #stateOrGone(): Promise<DomainState | undefined> {
    return answerOf(
      "told the domain's state",
      ifThere(() => this.#domain.state()),
    );
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#side.end();
    for (const server of this.#servers.splice(0)) server.close();
    for (const rpc of this.#rpc) rpc.hangUp();
    for (const socket of this.#local) socket.destroy();
    this.#stream?.close();
    await this.#rendezvous?.remove();
    await letGo(this.#events.close().catch(() => {}));
    await letGo(this.#connection.close());
  }
}
