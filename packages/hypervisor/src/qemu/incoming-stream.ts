/**
 * The stream of a guest that enters, from items to QEMU's socket, whoever told QEMU to listen: vmferry by its
 * monitor, or libvirt. QEMU's return path comes out as events.
 */
import { AwaitedPages } from '@vmferry/engine/carriage/awaited-pages';
import { EventQueue } from '@vmferry/engine/event-queue';
import {
  type DestEvent,
  type DestItem,
  type PageBatch,
  PageKind,
  type PageRange,
  type RamLayout,
} from '@vmferry/engine/guest';
import { type BlockIndex, blockIndex, bytes, PAGE_BYTES, pages, round } from '@vmferry/engine/units';
import type { LocalSocket } from '@vmferry/native/local-socket';
import { AT_ONCE_BYTES, SocketWriter } from './socket-writer.ts';
import { StreamEncoder } from './stream/encoder.ts';
import { Ping } from './stream/format.ts';
import { type Reply, ReturnPathDecoder, ReturnPathEncoder } from './stream/return-path.ts';

const REPLY_BYTES = 64 * 1024;

/**
 * A QEMU that cannot load the guest may say so on the return path as well (10.0 does, 7.2 does not). The source's QEMU
 * is not to hear of it: 7.2 in post-copy would pause its migration for ever, and could not give the guest back. Whoever
 * watches the destination's QEMU knows anyway.
 */
function isFailure(reply: Reply): boolean {
  return reply.type === 'shut' && reply.value !== 0;
}

export class IncomingStream {
  /** Post-copy: QEMU has loaded the guest's state. */
  readonly stateLoaded: Promise<void>;
  readonly #events = new EventQueue<DestEvent>();
  readonly #encoder = new StreamEncoder();
  readonly #replies = new ReturnPathDecoder();
  /** What QEMU asked for and was not given, by its first page. */
  readonly #awaited = new AwaitedPages<PageRange>();
  #resolveLoaded: () => void = () => {};
  #socket: LocalSocket | undefined;
  #writer: SocketWriter | undefined;
  #blocks = new Map<string, BlockIndex>();
  #postcopy = false;
  #discarding = false;
  #untouched = true;

  constructor() {
    this.stateLoaded = new Promise((resolve) => {
      this.#resolveLoaded = resolve;
    });
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#events;
  }

  /** The guest's state was applied, and pages follow. */
  get postcopy(): boolean {
    return this.#postcopy;
  }

  get begun(): boolean {
    return this.#writer !== undefined;
  }

  /** Nothing was given to QEMU. */
  get untouched(): boolean {
    return this.#untouched;
  }

  /** QEMU listens, and takes the stream from here. */
  begin(socket: LocalSocket): void {
    this.#socket = socket;
    this.#writer = new SocketWriter(socket);
    void this.#readReplies(socket);
  }

  async #readReplies(socket: LocalSocket): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(REPLY_BYTES);
    // What broke is told by the writer and by QEMU's end.
    const receive = (): Promise<number> => socket.receive(buffer, 1, 0).catch(() => 0);
    for (let bytes = await receive(); bytes > 0; bytes = await receive()) {
      for (const reply of this.#replies.push(buffer.subarray(0, bytes))) this.#onReply(reply);
    }
  }

  /** See `DestGuest`. */
  apply(item: DestItem): Promise<void> {
    const writer = this.#need();
    switch (item.type) {
      case 'ram-layout':
        this.#setLayout(item.layout);
        return Promise.resolve();
      case 'opaque':
        this.#untouched = false;
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

  #setLayout(layout: RamLayout): void {
    this.#encoder.checkLayout(layout);
    this.#blocks = new Map(layout.blocks.map((block, index) => [block.name, blockIndex(index)]));
  }

  async #applyPages(writer: SocketWriter, batch: PageBatch): Promise<void> {
    this.#untouched = false;
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

  /** A QEMU that waits for a page does not end, and keeps the disks; what it gets does not matter any more. */
  answerWithZeros(): void {
    this.#discarding = true;
    for (const range of this.#awaited.values()) this.#answerWithZeros(range);
  }

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

  close(): void {
    this.#events.end();
    this.#socket?.close();
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
    if (isFailure(reply)) return;
    this.#events.push({ type: 'reply', bytes: reply.bytes });
    if (reply.type === 'pong' && reply.value === Ping.stateLoaded) this.#onLoaded();
  }

  /**
   * The source's QEMU has to know before anybody says READY: one that waits for the second answer runs the guest
   * again when its agent ends, and by then the guest may run here. It comes once more from QEMU, which is nothing.
   */
  #onLoaded(): void {
    this.#events.push({ type: 'reply', bytes: new ReturnPathEncoder().pong(Ping.packageLoaded) });
    this.#resolveLoaded();
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
}
