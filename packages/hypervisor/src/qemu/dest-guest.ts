/**
 * The guest that enters: a QEMU that waits with `-incoming` gets the items as a stream again.
 *
 *     idle ── open ──▶ loading ── all state applied ──▶ ready (loaded, paused) ── run ──▶ running
 *                         │                                │
 *                         └────────── discard ◀────────────┘
 *
 * `stop` before the stream makes sure that QEMU never starts the guest by itself, whether it was given -S
 * or not; only `run` starts it. Disks are taken over at that moment too (late-block-activate), so that a
 * source that goes on after all finds them free.
 */
import { AwaitedPages } from '@vmferry/engine/carriage/awaited-pages';
import { GuestError } from '@vmferry/engine/errors';
import { EventQueue } from '@vmferry/engine/event-queue';
import {
  type DestEvent,
  type DestGuest,
  type DestItem,
  type DestPlan,
  type Examination,
  type GuestDescription,
  type PageBatch,
  PageKind,
  type PageRange,
  type PrepareResult,
  type RamLayout,
} from '@vmferry/engine/guest';
import {
  type BlockIndex,
  blockIndex,
  bytes,
  type Millis,
  PAGE_BYTES,
  pages,
  round,
} from '@vmferry/engine/units';
import type { LocalSocket } from '@vmferry/native/local-socket';
import { destBlockers } from './inspect/blockers.ts';
import { destSettings, MigrationSettings } from './inspect/capabilities.ts';
import { compareForMigration } from './inspect/compare.ts';
import { memoryBeyondUserfaultfd } from './inspect/file-memory.ts';
import { describeGuest } from './inspect/guest.ts';
import { setMark, takeMark } from './mark.ts';
import { connectToQemu, privateSocketPath } from './migration-socket.ts';
import { QmpClient } from './qmp/client.ts';
import { asGuestError, QmpError } from './qmp/errors.ts';
import { migrateReply, statusReply, typed } from './qmp/schema.ts';
import { AT_ONCE_BYTES, SocketWriter } from './socket-writer.ts';
import { StreamEncoder } from './stream/encoder.ts';
import { type Reply, ReturnPathDecoder } from './stream/return-path.ts';

/** The ping that QEMU puts behind the device state in post-copy's package; the answer means: loaded. */
const STATE_LOADED_PING = 3;
const LOAD_TIMEOUT_MS = 120_000;
const REPLY_BYTES = 64 * 1024;

interface Deferred {
  readonly promise: Promise<void>;
  resolve(): void;
}

export class QemuDestGuest implements DestGuest {
  readonly gone: Promise<GuestError>;
  readonly #client: QmpClient;
  readonly #name: string;
  readonly #settings: MigrationSettings;
  readonly #endUnused: boolean;
  readonly #encoder = new StreamEncoder();
  readonly #replies = new ReturnPathDecoder();
  readonly #events = new EventQueue<DestEvent>();
  readonly #stateLoaded = deferred();
  #socket: LocalSocket | undefined;
  #writer: SocketWriter | undefined;
  #layout: RamLayout = { blocks: [] };
  #blocks = new Map<string, BlockIndex>();
  #postcopy = false;
  #opened = false;
  #discarding = false;
  #session = '';
  /** What QEMU asked for and was not given, by its first page. */
  readonly #awaited = new AwaitedPages<PageRange>();
  /** Settled when `open` has come to its end, whichever way. */
  #opening: Promise<unknown> = Promise.resolve();

  /**
   * `endUnused`: QEMU was started for this migration and ends with `close` when nothing came of it.
   *
   * @throws GuestError when the monitor cannot be had
   */
  static async connect(path: string, { endUnused = false } = {}): Promise<QemuDestGuest> {
    try {
      return new QemuDestGuest(await QmpClient.connect(path), `qemu:${path}`, endUnused);
    } catch (error) {
      throw asGuestError(error);
    }
  }

  private constructor(client: QmpClient, name: string, endUnused: boolean) {
    this.#client = client;
    this.#name = name;
    this.#endUnused = endUnused;
    this.#settings = new MigrationSettings(client);
    this.gone = client.closed.then(
      (error) =>
        new GuestError(
          'E_GUEST_GONE',
          `the destination's QEMU is gone: ${error.message}`,
          "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
          { cause: error },
        ),
    );
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#events;
  }

  async prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult> {
    return await this.#asking(async () => {
      const reasons = await destBlockers(this.#client);
      const own = await describeGuest(this.#client, this.#name);
      reasons.push(...compareForMigration(description, own, { postcopy: plan.postcopy }));
      if (plan.postcopy) reasons.push(...(await memoryBeyondUserfaultfd(this.#client)));
      if (reasons.length === 0 && plan.postcopy) reasons.push(...(await this.#tryPostcopy()));
      if (reasons.length > 0) return { ok: false, reasons };
      return { ok: true, hypervisorVersion: own.hypervisorVersion, nics: own.nics };
    });
  }

  /** QEMU tests userfaultfd when the capability is set, and only then. */
  async #tryPostcopy(): Promise<GuestError[]> {
    try {
      await this.#settings.apply(destSettings(true));
      await this.#settings.restore();
      return [];
    } catch (error) {
      if (error instanceof GuestError) return [error];
      throw error;
    }
  }

  open(plan: DestPlan, session: string): Promise<void> {
    const opened = this.#open(plan, session);
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(plan: DestPlan, session: string): Promise<void> {
    this.#session = session;
    const place = await privateSocketPath();
    try {
      await this.#asking(async () => {
        await this.#client.execute('stop');
        await this.#settings.apply(destSettings(plan.postcopy));
        this.#opened = true;
        await setMark(this.#client, session);
        await this.#client.execute('migrate-incoming', { uri: `unix:${place.path}` });
      });
      this.#socket = connectToQemu(place.path);
    } finally {
      await place.remove();
    }
    this.#writer = new SocketWriter(this.#socket);
    void this.#readReplies(this.#socket);
  }

  async #readReplies(socket: LocalSocket): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(REPLY_BYTES);
    // What broke is told by the writer and by QEMU's end.
    const receive = (): Promise<number> => socket.receive(buffer, 1, 0).catch(() => 0);
    for (let bytes = await receive(); bytes > 0; bytes = await receive()) {
      this.#onReplies(buffer.subarray(0, bytes));
    }
  }

  apply(item: DestItem): Promise<void> {
    const writer = this.#need();
    switch (item.type) {
      case 'ram-layout':
        this.#encoder.checkLayout(item.layout);
        this.#layout = item.layout;
        this.#blocks = new Map(item.layout.blocks.map((block, index) => [block.name, blockIndex(index)]));
        return Promise.resolve();
      case 'opaque':
        return writer.write(this.#encoder.opaque(item.bytes), 'bulk');
      case 'pages':
        return this.#applyPages(writer, item);
      case 'state-complete':
        this.#postcopy = item.pagesFollow;
        this.#encoder.wholeHostPages = item.pagesFollow;
        return Promise.resolve();
      case 'end':
        return Promise.resolve();
    }
  }

  async #applyPages(writer: SocketWriter, batch: PageBatch): Promise<void> {
    this.#awaited.arrived(batch.block, batch.pages);
    try {
      // Little is joined and goes at once; of much, nothing is copied before the kernel does.
      if (this.#encoder.maxEncodedBytes(batch) <= AT_ONCE_BYTES) {
        await writer.write(this.#encoder.encodePages(batch), batch.lane);
      } else {
        await writer.writePieces(this.#encoder.sectionPieces(batch), batch.lane);
      }
    } finally {
      batch.release();
    }
  }

  async ready(): Promise<void> {
    await this.#asking(async () => {
      if (this.#postcopy) await this.#untilStateLoaded();
      else await this.#untilCompleted();
      const { status } = await typed(this.#client, 'query-status', statusReply, undefined, {
        timeoutMs: LOAD_TIMEOUT_MS,
      });
      if (status === 'inmigrate' || status === 'running') {
        throw new GuestError(
          'E_GUEST_FAILED',
          `the destination's QEMU is "${status}" where it should be loaded and paused`,
          "look into QEMU's log on the destination host",
        );
      }
    });
  }

  /** The answer to the ping comes just before QEMU's main loop has gone over from "inmigrate" to paused. */
  async #untilStateLoaded(): Promise<void> {
    await Promise.race([this.#stateLoaded.promise, this.#untilGone()]);
    for (let tries = 0; tries < 2000; tries += 1) {
      const { status } = await typed(this.#client, 'query-status', statusReply, undefined, {
        timeoutMs: LOAD_TIMEOUT_MS,
      });
      if (status !== 'inmigrate') return;
    }
  }

  async #untilGone(): Promise<never> {
    throw await this.gone;
  }

  async complete(): Promise<void> {
    await this.#asking(() => this.#untilCompleted());
  }

  async #untilCompleted(): Promise<void> {
    const over = new AbortController();
    const ended = (status: string): boolean => status === 'completed' || status === 'failed';
    const event = this.#client.waitForEvent('MIGRATION', (e) => ended(String(e.data['status'])), {
      signal: over.signal,
    });
    event.catch(() => {});
    try {
      let { status } = await typed(this.#client, 'query-migrate', migrateReply);
      if (!status || !ended(status)) status = String((await event).data['status']);
      if (status === 'completed') return;
      throw new GuestError(
        'E_GUEST_FAILED',
        "the destination's QEMU could not load the guest",
        "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
      );
    } finally {
      over.abort();
    }
  }

  async run({ paused }: { paused: boolean }): Promise<{ readonly atMs: Millis }> {
    return await this.#asking(async () => {
      // Not awaited: QEMU takes commands in their order, and this one is not to hold the guest up.
      const unmarked = takeMark(this.#client, this.#session);
      if (paused) {
        await unmarked;
        return { atMs: Date.now() as Millis };
      }
      const resumed = this.#client.waitForEvent('RESUME', () => true, { timeoutMs: LOAD_TIMEOUT_MS });
      resumed.catch(() => {});
      await Promise.all([unmarked, this.#client.execute('cont', undefined, { timeoutMs: LOAD_TIMEOUT_MS })]);
      const { atMs } = await resumed;
      return { atMs };
    });
  }

  /** Only the guest itself knows what its memory should hold. */
  examine(): Promise<Examination> {
    return Promise.resolve({ found: 'nothing' });
  }

  async announceSelf(): Promise<void> {
    await this.#asking(() =>
      this.#client.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 100 }),
    );
  }

  async discard(): Promise<void> {
    // What is half begun cannot be ended: it would begin after its end.
    await this.#opening;
    if (!this.#opened) {
      await this.settle();
      return;
    }
    this.#discarding = true;
    for (const range of this.#awaited.values()) this.#answerWithZeros(range);
    await this.#quit();
  }

  /** A QEMU that waits for a page does not end, and keeps the disks; what it gets does not matter any more. */
  #answerWithZeros({ block, first, count }: PageRange): void {
    const batch: PageBatch = {
      type: 'pages',
      block,
      round: round(0),
      lane: 'express',
      pages: Uint32Array.from({ length: count }, (_, index) => first + index),
      kinds: new Uint8Array(count).fill(PageKind.zero),
      content: new Uint8Array(0),
      headroomBytes: bytes(0),
      release: () => {},
    };
    // One that takes no more has ended.
    this.apply(batch).catch(() => {});
  }

  async #quit(): Promise<void> {
    try {
      await this.#client.execute('quit');
    } catch (error) {
      if (!(error instanceof QmpError) || error.code !== 'E_QMP_CLOSED') throw asGuestError(error);
    }
  }

  async settle(): Promise<void> {
    await this.#asking(() => this.#settings.restore());
  }

  async close(): Promise<void> {
    this.#events.end();
    this.#socket?.close();
    if (this.#endUnused && !this.#opened) await this.#quit();
    await this.#client.close();
  }

  #onReplies(chunk: Buffer): void {
    for (const reply of this.#replies.push(chunk)) this.#onReply(reply);
  }

  #onReply(reply: Reply): void {
    if (reply.type === 'request-pages') {
      const block = this.#blocks.get(reply.blockName);
      if (block === undefined) return;
      const first = Math.floor(reply.start / PAGE_BYTES);
      const count = Math.ceil((reply.start + reply.length) / PAGE_BYTES) - first;
      this.#onFault({ block, first: pages(first), count: pages(count) });
      return;
    }
    if (reply.type === 'pong' && reply.value === STATE_LOADED_PING) this.#stateLoaded.resolve();
    this.#events.push({ type: 'reply', bytes: reply.bytes });
  }

  #onFault(range: PageRange): void {
    this.#awaited.set(range.block, range.first, range);
    if (this.#discarding) this.#answerWithZeros(range);
    else this.#events.push({ type: 'fault', range });
  }

  #need(): SocketWriter {
    if (!this.#writer) throw new Error('the destination guest was not opened');
    return this.#writer;
  }

  async #asking<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw asGuestError(error);
    }
  }
}

function deferred(): Deferred {
  let settle: () => void = () => {};
  const promise = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { promise, resolve: () => settle() };
}
