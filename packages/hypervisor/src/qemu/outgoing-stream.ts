/**
 * The stream of a guest that leaves, from QEMU's socket to items, whoever told QEMU to migrate: vmferry by its
 * monitor, or libvirt. With it the stopped guest's memory, and QEMU's return path.
 */
import { pacedBatch } from '@vmferry/engine/carriage/batch-limits';
import { GuestError } from '@vmferry/engine/errors';
import type {
  Lane,
  PageBatch,
  PageRange,
  RamLayout,
  SourceItem,
  SourcePlan,
  SourceProgress,
} from '@vmferry/engine/guest';
import { type BytesPerSec, PAGE_BYTES, pages, type Round, round } from '@vmferry/engine/units';
import type { LocalSocket } from '@vmferry/native/local-socket';
import { BatchBuffers } from './batch-buffers.ts';
import { SocketReader } from './socket-reader.ts';
import { StoppedMemory } from './stopped-memory.ts';
import type { DecodedItem } from './stream/decoded.ts';
import { StreamDecoder } from './stream/decoder.ts';
import { Ping } from './stream/format.ts';
import { OpaqueBuffer } from './stream/opaque-buffer.ts';
import { ReturnPathEncoder } from './stream/return-path.ts';
import { UrgentPages } from './urgent-pages.ts';

/** A spell of QEMU's writing ends after 50 ms, once some 256 KiB more were taken: what stands ahead stays small. */
const TAKE_EVERY_MS = 10;

export interface OutgoingStreamOptions {
  readonly plan: SourcePlan;
  /** What is left, at the moment in which a pass begins. */
  readonly progress: () => Promise<Pick<SourceProgress, 'remainingBytes' | 'dirtyBytesPerSec'>>;
  /** QEMU has closed its end. Resolves when it says that all is sent; rejects with why it is not. */
  readonly completed: () => Promise<void>;
  /**
   * Pre-copy, once all is sent: resolves when whoever keeps the guest can no longer run it by itself; rejects with why
   * it never will. Not given where QEMU's word that all is sent is enough.
   */
  readonly letsGo?: () => Promise<void>;
}

/** QEMU's end of the stream. */
export interface StreamOrigin {
  readonly socket: LocalSocket;
  /** The process that has the guest's memory, where it is known. */
  readonly pid: number | undefined;
  /** Where it has it, by block; empty unless post-copy is possible. */
  readonly addresses: ReadonlyMap<string, number>;
}

export class OutgoingStream {
  readonly #options: OutgoingStreamOptions;
  readonly #buffers: BatchBuffers;
  readonly #decoder: StreamDecoder;
  readonly #replies = new ReturnPathEncoder();
  readonly #urgent = new UrgentPages();
  /** Empty between two chunks. */
  readonly #small = new OpaqueBuffer();
  /** Items that do not come from the stream: round ends and the stop. */
  readonly #asides: SourceItem[] = [];
  readonly #firstChunkBytes: number;
  #origin: StreamOrigin | undefined;
  #reader: SocketReader | undefined;
  #layout: RamLayout = { blocks: [] };
  #stopped: StoppedMemory | undefined;
  #round: Round = round(0);
  #givenUp = false;
  #postcopy = false;
  /** Post-copy: QEMU has sent the last page and waits for the destination's word. */
  #ramEnded = false;
  /** The stream was decoded to its end. */
  #decoded = false;
  #drained: Promise<void> | undefined;
  #drainedAt = performance.now();

  constructor(options: OutgoingStreamOptions) {
    this.#options = options;
    const { plan } = options;
    this.#buffers = new BatchBuffers(plan);
    const firstBatch = pacedBatch(plan.batches.precopy, undefined);
    this.#firstChunkBytes = firstBatch.rawPages * PAGE_BYTES;
    this.#decoder = new StreamDecoder({
      batchPages: firstBatch.rawPages,
      batchPagesInAll: firstBatch.pages,
      postcopyBatch: plan.batches.postcopy,
      allocate: this.#buffers.allocate,
    });
  }

  get round(): Round {
    return this.#round;
  }

  /** The guest's state was sent, and pages follow. */
  get postcopy(): boolean {
    return this.#postcopy;
  }

  /** QEMU has connected. */
  begin(origin: StreamOrigin): void {
    this.#origin = origin;
    this.#reader = new SocketReader(origin.socket);
    this.#reader.chunkBytes = this.#firstChunkBytes;
  }

  /** The guest stands still since then (wall clock). */
  guestStopped(item: Extract<SourceItem, { type: 'stopped' }>): void {
    if (!this.#givenUp) this.#aside(item);
  }

  /**
   * A pass begins right after QEMU read the dirty log, so what is left is known exactly at that moment. Before the pass
   * of the stopped guest QEMU tells it only when all of that pass was sent.
   */
  async passBegan(pass: number): Promise<void> {
    const ended = this.#round;
    this.#round = round(pass);
    this.#decoder.round = this.#round;
    if (ended === 0 || this.#postcopy || this.#givenUp) return;
    this.#aside({ type: 'round-over', round: ended });
    try {
      const { remainingBytes, dirtyBytesPerSec } = await this.#options.progress();
      this.#aside({ type: 'round-end', round: ended, remainingBytes, dirtyBytesPerSec });
    } catch {
      // A monitor that died is told by `gone`; a round whose end is not reported is only a missing row.
    }
  }

  #aside(item: SourceItem): void {
    this.#asides.push(item);
    this.#reader?.wake();
  }

  async *items(): AsyncGenerator<SourceItem> {
    const reader = this.#reader!;
    for (;;) {
      for (let aside = this.#asides.shift(); aside; aside = this.#asides.shift()) yield aside;
      // Whoever gives the migration up reads on from here itself.
      if (this.#givenUp) return;
      const chunk = reader.read();
      if (chunk) yield* gathered(this.#decode(chunk), this.#small);
      else if (reader.ended) break;
      else if (this.#asides.length === 0) await reader.more();
    }
    await this.#options.completed();
    for (let aside = this.#asides.shift(); aside; aside = this.#asides.shift()) yield aside;
    this.#decoded = true;
    const end = this.#decoder.finish();
    if (end.state === 'truncated') {
      throw new GuestError(
        'E_STREAM',
        `QEMU's stream ends within its ${end.where}`,
        'report this with the version of QEMU',
      );
    }
    if (!this.#postcopy) {
      yield { type: 'state-complete', pagesFollow: false };
      await this.#options.letsGo?.();
    }
    yield { type: 'end' };
  }

  *#decode(chunk: Buffer): Generator<SourceItem> {
    const decoder = this.#decoder;
    decoder.push(chunk);
    for (let item = decoder.next(); item; item = this.#givenUp ? undefined : decoder.next()) {
      if (item.type === 'pages' && item.lane === 'express') this.#urgent.arrived(item.block, item.pages);
      const known = this.#translate(item);
      if (known) yield known;
    }
  }

  #translate(item: DecodedItem): SourceItem | undefined {
    switch (item.type) {
      case 'ram-layout':
        this.#layout = item.layout;
        this.#urgent.setLayout(item.layout);
        this.#stopped = this.#openMemory(item.layout);
        return { type: 'ram-layout', layout: item.layout };
      case 'pages':
        return this.#postcopy && this.#stopped ? this.#stopped.admit(item) : item;
      case 'opaque':
      case 'verbatim':
        return item;
      case 'state-complete':
        this.#enterPostcopy();
        return { type: 'state-complete', pagesFollow: true };
      case 'ram-end':
        this.#ramEnded = this.#postcopy;
        return undefined;
      case 'command':
        if (item.name === 'discard') this.#discarded(item);
        return undefined;
    }
  }

  #openMemory(layout: RamLayout): StoppedMemory | undefined {
    const { pid, addresses } = this.#origin!;
    return pid === undefined ? undefined : StoppedMemory.open(pid, layout, addresses);
  }

  #discarded({ block, ranges }: Extract<DecodedItem, { name: 'discard' }>): void {
    for (const [start, length] of ranges) {
      this.#stopped?.discarded({
        block,
        first: pages(start / PAGE_BYTES),
        count: pages(length / PAGE_BYTES),
      });
    }
  }

  #enterPostcopy(): void {
    this.#postcopy = true;
    this.#decoder.flushAtChunkEnd = true;
    // Nothing is urgent before: no page is asked for as long as the destination has not got this far.
    this.#decoder.isUrgent = (block, page) => this.#urgent.has(block, page);
    if (this.#reader) this.#reader.eager = true;
  }

  /** See `SourceGuest`. The same for the next three. */
  takePages(range: PageRange): PageBatch | 'sent' | undefined {
    return this.#postcopy && !this.#givenUp ? this.#stopped?.take(range, this.#round) : undefined;
  }

  requestPages(ranges: readonly PageRange[], lane: Lane): void {
    for (const range of ranges) {
      const block = this.#layout.blocks[range.block];
      if (!block) throw new RangeError(`there is no block ${range.block}`);
      if (lane === 'express') this.#urgent.add(range);
      this.deliverReply(
        this.#replies.requestPages(block.name, range.first * PAGE_BYTES, range.count * PAGE_BYTES),
      );
    }
  }

  deliverReply(message: Uint8Array): void {
    if (!this.#givenUp) this.#reply(message);
  }

  setPace(contentBytesPerSec: BytesPerSec): void {
    const { batches } = this.#options.plan;
    if (!this.#reader) return;
    const precopy = pacedBatch(batches.precopy, contentBytesPerSec);
    this.#decoder.limitBatches(precopy, pacedBatch(batches.postcopy, contentBytesPerSec));
    this.#reader.chunkBytes = precopy.rawPages * PAGE_BYTES;
  }

  /** A QEMU that reads no more has told why, or will. */
  #reply(message: Uint8Array): void {
    this.#origin?.socket.sendSoon(message).catch(() => {});
  }

  /**
   * Takes a little from QEMU all the time, though nobody reads: it notices what it was told only between two spells of
   * writing. Returns what ends that.
   */
  keepTaking(): () => void {
    const take = (): void => this.#reader?.pullOneMore();
    take();
    const timer = setInterval(take, TAKE_EVERY_MS);
    return () => clearInterval(timer);
  }

  /** Nothing more comes of `items`. */
  giveUp(): void {
    this.#givenUp = true;
    this.#reader?.wake();
  }

  /**
   * After `giveUp`: reads until QEMU closes its end, and throws all of it away. `finishes`: in post-copy QEMU is told what
   * a destination would tell it, that the state is loaded and that all pages are there, so that it comes to its end. Once:
   * later calls wait for the same end.
   */
  drain(how: { readonly finishes: boolean }): Promise<void> {
    this.#drained ??= this.#drain(how);
    return this.#drained;
  }

  async #drain({ finishes }: { readonly finishes: boolean }): Promise<void> {
    const reader = this.#reader;
    if (!reader) return;
    if (finishes && this.#postcopy) this.#tellLoaded();
    let understood = finishes && this.#throwAway();
    while (!reader.ended) {
      const chunk = reader.read();
      if (!chunk) {
        await reader.more();
        continue;
      }
      this.#drainedAt = performance.now();
      if (understood && !this.#ramEnded) understood = this.#throwAway(chunk);
    }
  }

  /** While it is drained: for how long QEMU has written nothing, in milliseconds. */
  get quietMs(): number {
    return performance.now() - this.#drainedAt;
  }

  /** After the last page of a post-copy QEMU waits for the word that all have arrived. */
  #throwAway(chunk?: Buffer): boolean {
    const decoder = this.#decoder;
    if (this.#decoded) return false;
    try {
      if (chunk) decoder.push(chunk);
      for (let item = decoder.next(); item; item = decoder.next()) {
        if (item.type === 'pages') item.release();
        else if (item.type === 'state-complete') {
          this.#postcopy = true;
          this.#tellLoaded();
        } else if (item.type === 'ram-end') this.#ramEnded = this.#postcopy;
      }
    } catch {
      // The word may come early; that the stream is not understood matters to nobody any more.
      this.#ramEnded = this.#postcopy;
    }
    if (this.#ramEnded) this.#reply(this.#replies.shut(0));
    return !this.#ramEnded;
  }

  /** An answer too many is nothing to QEMU. */
  #tellLoaded(): void {
    this.#reply(this.#replies.pong(Ping.packageLoaded));
  }

  /** Closes this end. */
  cut(): void {
    this.#origin?.socket.close();
  }

  close(): void {
    this.cut();
    this.#buffers.close();
    this.#stopped?.close();
  }
}

/** Post-copy begins with hundreds of small commands, while the guest stands still: they leave as few items. */
function* gathered(items: Iterable<SourceItem>, small: OpaqueBuffer): Generator<SourceItem> {
  for (const item of items) {
    if (item.type === 'opaque' && small.takes(item.bytes)) continue;
    if (small.length > 0) yield { type: 'opaque', bytes: small.take() };
    yield item;
  }
  if (small.length > 0) yield { type: 'opaque', bytes: small.take() };
}
