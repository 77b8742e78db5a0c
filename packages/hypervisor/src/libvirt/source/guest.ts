/**
 * The guest that leaves, where libvirt keeps it: libvirt migrates it peer-to-peer, to sockets of the agent's.
 *
 *     libvirtd ── its calls ──▶ SOCKETS/rpc ─ tunnel ─▶ the destination's libvirtd
 *     QEMU ──── the disks ────▶ SOCKETS/nbd ─ tunnel ─▶ the destination's QEMU
 *     QEMU ── the guest's RAM and state ─▶ SOCKETS/ram ─ items ─▶ the destination's QEMU
 *
 * Who owns the domain is libvirt's to say. Before post-copy it takes the guest back whenever it hears no good answer to
 * its call to finish. So that answer is here before the commit, kept from libvirt, and given to it when the commit is on
 * disk: no link is needed for it. Once in post-copy libvirt never takes the guest back. Before the commit this driver
 * does, where QEMU can (`undo-postcopy`); after it the domain is paused here until the migration is finished, which may be
 * tried again.
 *
 * What is done has a file of its own: the look before it, the departure, its roll-back, the halted post-copy, the end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestError } from '@vmferry/engine/errors';
import type {
  GuestDescription,
  Lane,
  ManagedPlan,
  PageBatch,
  PageRange,
  SideConnection,
  SourceGuest,
  SourceItem,
  SourcePlan,
  SourcePreflight,
  SourceProgress,
} from '@vmferry/engine/guest';
import { type BytesPerSec, bytesPerSec, millis } from '@vmferry/engine/units';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { letGo, openLibvirt } from '../answer.ts';
import { cancelledAtMs, DomainEvents, type DomainHappening } from '../domain-events.ts';
import { asking } from '../errors.ts';
import { type LibvirtOptions, parseDomainAddress } from '../options.ts';
import { MigrateCall } from './call.ts';
import { SourceConnections } from './connections.ts';
import { Departure } from './departure.ts';
import { SourceDomain } from './domain.ts';
import { endMoved, expectHalted, untilEnded } from './ending.ts';
import { daemonGone, gone } from './faults.ts';
import { HaltedPostcopy } from './halted.ts';
import { letsGo } from './lets-go.ts';
import { SourceLook } from './look.ts';
import { Losses } from './losses.ts';
import { RollBack } from './roll-back.ts';

export class LibvirtSourceGuest implements SourceGuest {
  readonly gone: Promise<GuestError>;
  readonly #options: LibvirtOptions;
  readonly #domain: SourceDomain;
  readonly #events: DomainEvents;
  readonly #connections: SourceConnections;
  readonly #call: MigrateCall;
  readonly #losses: Losses;
  readonly #look: SourceLook;
  readonly #departure: Departure;
  readonly #rollBack: RollBack;
  readonly #halted: HaltedPostcopy;
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
    handle: Domain,
    events: DomainEvents,
    options: LibvirtOptions,
  ) {
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
    });
    const domain = new SourceDomain(connection, handle, options.uri);
    const connections = new SourceConnections(options);
    const call = new MigrateCall(domain);
    const losses = new Losses(call, this.#resolveGone);
    const look = new SourceLook(domain);
    this.#options = options;
    this.#domain = domain;
    this.#events = events;
    this.#connections = connections;
    this.#call = call;
    this.#losses = losses;
    this.#look = look;
    this.#departure = new Departure({ domain, events, connections, call, losses, look });
    this.#rollBack = new RollBack(this.#departure, { domain, connections, call, options });
    this.#halted = new HaltedPostcopy({ domain, events, connections, call, losses, options });
    connection.once('close', (reason) => {
      if (reason !== 'client') this.#resolveGone(daemonGone(reason));
    });
    this.#unsubscribe = events.on((happening) => this.#watch(happening));
  }

  get sideConnections(): AsyncIterable<SideConnection> {
    return this.#connections.side;
  }

  get remark(): string | undefined {
    return this.#rollBack.remark;
  }

  get abortedBy(): GuestError | undefined {
    return this.#rollBack.abortedBy;
  }

  #watch(happening: DomainHappening): void {
    const cancelledMs = cancelledAtMs(happening);
    if (cancelledMs !== undefined) this.#call.cancelled(cancelledMs);
    if (happening.type === 'lifecycle') {
      const { event, detail } = happening.change;
      if (event !== 'stopped') return;
      if (detail !== 'migrated') this.#resolveGone(gone(`the domain ended on the source (${detail})`));
      else this.#connections.hangUpDetached();
      return;
    }
    if (happening.type !== 'monitor' || !this.#departure.migrating) return;
    const { stream } = this.#departure;
    if (happening.event === 'STOP') {
      stream?.guestStopped({ type: 'stopped', atMs: millis(happening.atMs) });
    } else if (happening.event === 'MIGRATION_PASS') {
      void stream?.passBegan(Number(happening.data['pass']));
    } else if (happening.event === 'BLOCK_JOB_COMPLETED') this.#losses.copyEnded(happening.data['error']);
  }

  async describe(): Promise<GuestDescription> {
    const { socketDir } = this.#options;
    const rendezvous = this.#connections.rendezvousName;
    return await asking(() => this.#look.describe({ socketDir, rendezvous }));
  }

  async blockers(plan: SourcePlan): Promise<readonly GuestError[]> {
    return await asking(() => this.#look.blockers(plan));
  }

  async preflight(plan: SourcePlan): Promise<SourcePreflight> {
    return await asking(() => this.#look.preflight(plan));
  }

  open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    return this.#departure.open(plan);
  }

  progress(): Promise<SourceProgress> {
    return this.#departure.progress();
  }

  /** Not while the domain migrates: libvirt has no time for it then. */
  async measureDirtyRate(seconds = 1): Promise<BytesPerSec | undefined> {
    if (this.#departure.migrating) return undefined;
    const { connection, handle } = this.#domain;
    return await asking(async () => {
      await handle.startDirtyRateCalculation(seconds);
      for (let tries = 0; tries < 40 * seconds; tries += 1) {
        await sleep(50);
        const { status, mibPerSecond } = await connection.dirtyRate(handle);
        if (status === 'measured') return bytesPerSec((mibPerSecond ?? 0) * 1024 * 1024);
      }
      return undefined;
    });
  }

  switchover(): Promise<void> {
    return this.#departure.switchover();
  }

  startPostcopy(): Promise<void> {
    return this.#departure.startPostcopy();
  }

  requestPages(ranges: readonly PageRange[], lane: Lane): void {
    this.#departure.stream?.requestPages(ranges, lane);
  }

  takePages(range: PageRange): PageBatch | 'sent' | undefined {
    return this.#departure.stream?.takePages(range);
  }

  setPace(contentBytesPerSec: BytesPerSec): void {
    this.#departure.stream?.setPace(contentBytesPerSec);
  }

  deliverReply(reply: Uint8Array): void {
    this.#departure.stream?.deliverReply(reply);
  }

  async letsGo(): Promise<void> {
    const { stream } = this.#departure;
    if (!stream?.postcopy || this.#look.comesBack !== 'by-itself') return;
    await asking(() => letsGo(this.#domain.handle, this.#events, stream));
  }

  rollback(): Promise<void> {
    const { wasRunning, comesBack } = this.#look;
    return this.#rollBack.take({ wasRunning, comesBack });
  }

  committed(): void {
    this.#connections.letGo();
  }

  async suspend(): Promise<void> {
    await this.#halted.suspend(this.#departure.stream);
    await this.close();
  }

  async expectHalted(): Promise<void> {
    await asking(() => expectHalted(this.#domain));
  }

  async finishPostcopy(plan: ManagedPlan, tell: (note: string) => void): Promise<void> {
    await asking(() => this.#halted.finish(plan, tell));
  }

  async endMoved({ undefineSource }: ManagedPlan): Promise<void> {
    await asking(() => endMoved(this.#domain, undefineSource));
  }

  async forget(): Promise<void> {
    const { stream, undefineSource } = this.#departure;
    await untilEnded(this.#domain, this.#call, { postcopy: stream?.postcopy ?? false, undefineSource });
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#call.giveUp();
    await this.#halted.letGo();
    this.#connections.close();
    this.#departure.stream?.close();
    await this.#connections.removeDirectory();
    await letGo(this.#events.close().catch(() => {}));
    await this.#domain.close();
  }
}
