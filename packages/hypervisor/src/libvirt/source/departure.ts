/**
 * A migration from this host, from its being opened to its stream's end.
 *
 *     idle ── open ──▶ sockets served, downtime as it is to be ── libvirt called ──▶ disks copied
 *                ── libvirtd connects for the memory ──▶ items ── QEMU has sent all, the good answer is held ──▶ over
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SourceItem, SourcePlan, SourceProgress } from '@vmferry/engine/guest';
import { bytes, bytesPerSec, PAGE_BYTES, round } from '@vmferry/engine/units';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { LocalListener, type LocalSocket } from '@vmferry/native/local-socket';
import { locateBlocks } from '../../qemu/inspect/memory-map.ts';
import { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import { answerOf } from '../answer.ts';
import type { DomainEvents } from '../domain-events.ts';
import { asGuestError, asking } from '../errors.ts';
import { monitorOf } from '../monitor.ts';
import type { Rendezvous } from '../rendezvous.ts';
import type { MigrateCall } from './call.ts';
import type { SourceConnections } from './connections.ts';
import type { SourceDomain } from './domain.ts';
import { givenUp } from './faults.ts';
import type { SourceLook } from './look.ts';
import type { Losses } from './losses.ts';
import { migrateOptions } from './migrate-options.ts';
import { qemuPid } from './qemu-process.ts';

/** The largest downtime that QEMU takes (2000 s): whatever is left is then small enough to switch over. */
const SWITCH_NOW_MS = 2_000_000;
/** The smallest: QEMU goes on with rounds until vmferry's policy decides. */
const KEEP_GOING_MS = 1;
/** QEMU reads the dirty log only when it has stopped the guest, at the end of the first round. */
const ONE_ROUND_MS = 0;
/** Post-copy can be started once libvirt has begun the job. */
const START_POSTCOPY_MS = 10_000;
const RETRY_MS = 10;
const ROUND_POLL_MS = 100;

export interface DepartureParts {
  readonly domain: SourceDomain;
  readonly events: DomainEvents;
  readonly connections: SourceConnections;
  readonly call: MigrateCall;
  readonly losses: Losses;
  readonly look: SourceLook;
}

export class Departure {
  readonly #parts: DepartureParts;
  #stream: OutgoingStream | undefined;
  #downtimeMs: bigint | undefined;
  #migrating = false;
  #undefineSource = false;
  #opening: Promise<unknown> = Promise.resolve();

  constructor(parts: DepartureParts) {
    this.#parts = parts;
  }

  get stream(): OutgoingStream | undefined {
    return this.#stream;
  }

  /** The domain's own maximum downtime, once another was set. */
  get downtimeMs(): bigint | undefined {
    return this.#downtimeMs;
  }

  /** libvirt was asked, and has not given it up. */
  get migrating(): boolean {
    return this.#migrating;
  }

  get undefineSource(): boolean {
    return this.#undefineSource;
  }

  /** Settled when `open` has come to its end, whichever way. */
  get opening(): Promise<unknown> {
    return this.#opening;
  }

  takenBack(): void {
    this.#migrating = false;
  }

  open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    const opened = asking(() => this.#open(plan));
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    const { domain, connections, call, losses, look } = this.#parts;
    const rendezvous = await connections.open();
    const addresses = plan.postcopy ? await this.#locateMemory() : new Map<string, number>();
    const stream: OutgoingStream = new OutgoingStream({
      plan,
      progress: () => this.progress(),
      completed: () => call.completed(() => stream.postcopy),
      letsGo: () => Promise.race([losses.finishedThere, call.failure()]),
    });
    this.#stream = stream;
    await connections.serveCalls(
      rendezvous,
      { holdAnswer: true },
      { wanted: () => !call.givenUp, begun: (calls) => void losses.watchCalls(calls) },
    );
    const { copied } = await look.gathered(plan);
    if (copied.length > 0) await connections.serveDisks(rendezvous, () => void losses.diskClosed());
    const listener = new LocalListener(rendezvous.here('ram'));
    let socket: LocalSocket | undefined;
    try {
      this.#downtimeMs = await answerOf('told the maximum downtime', domain.handle.maxDowntimeMs());
      await this.setMaxDowntime(BigInt(look.oneLiveRound ? ONE_ROUND_MS : KEEP_GOING_MS));
      if (call.givenUp) throw givenUp();
      this.#migrate(plan, rendezvous, copied);
      socket = await Promise.race([listener.accept(), call.failure()]);
      losses.memoryBegins();
    } finally {
      if (!socket) listener.close();
    }
    if (!socket) throw new Error('the listener was closed');
    const pid = plan.postcopy ? await qemuPid(socket.peerPid, domain.handle) : undefined;
    stream.begin({ socket, pid, addresses });
    return look.oneLiveRound ? this.#endingItsRound(stream) : stream.items();
  }

  /**
   * QEMU ends its one live round when nothing is left to be sent. Where it has more than memory to send (what is
   * recorded of disks, in bitmaps) that is never so, and it would wait for ever.
   */
  async *#endingItsRound(stream: OutgoingStream): AsyncGenerator<SourceItem> {
    for await (const item of stream.items()) {
      if (item.type === 'verbatim') void this.#endRound(stream).catch(() => {});
      yield item;
    }
  }

  /** With the guest stopped its dirty log is read for the last time. A failure is seen by what does not come of it. */
  async #endRound(stream: OutgoingStream): Promise<void> {
    const { domain, call } = this.#parts;
    let begun = false;
    for (;;) {
      await sleep(ROUND_POLL_MS);
      if (call.ended || call.givenUp || stream.postcopy) return;
      const { remainingBytes } = await this.progress();
      if (begun && remainingBytes === 0) break;
      begun ||= remainingBytes > 0;
    }
    await answerOf('stopped the domain', domain.handle.suspend());
    await this.switchover();
  }

  /** What cannot be found is asked of QEMU, page by page. */
  async #locateMemory(): Promise<ReadonlyMap<string, number>> {
    const { domain, look } = this.#parts;
    try {
      return await locateBlocks(monitorOf(domain.handle), look.blocks);
    } catch {
      return new Map();
    }
  }

  #migrate(plan: SourcePlan, rendezvous: Rendezvous, copied: readonly string[]): void {
    const { domain, events, call } = this.#parts;
    this.#migrating = true;
    this.#undefineSource = plan.managed?.undefineSource ?? false;
    call.listen(events);
    void call.make(rendezvous, async () =>
      migrateOptions(plan, rendezvous, { persistent: await domain.handle.isPersistent(), copied }),
    );
  }

  async progress(): Promise<SourceProgress> {
    const { statistics } = await asking(() => this.#parts.domain.handle.job());
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

  async switchover(): Promise<void> {
    await asking(() => this.#parts.domain.handle.setMaxDowntimeMs(SWITCH_NOW_MS));
  }

  setMaxDowntime(ms: bigint): Promise<void> {
    return answerOf('set the maximum downtime', this.#parts.domain.handle.setMaxDowntimeMs(ms));
  }

  async startPostcopy(): Promise<void> {
    const { domain, call } = this.#parts;
    const deadline = performance.now() + START_POSTCOPY_MS;
    for (;;) {
      try {
        await domain.handle.startPostCopy();
        return;
      } catch (error) {
        // libvirt has no job yet, or QEMU has not begun.
        const early =
          isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID', 'VIR_ERR_INTERNAL_ERROR') &&
          !call.ended &&
          (this.#stream?.round ?? 0) === 0;
        if (!early || performance.now() > deadline) throw asGuestError(error);
      }
      await sleep(RETRY_MS);
    }
  }
}
