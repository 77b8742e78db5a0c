/**
 * The memory of a guest that stands still, read from its QEMU's process. In post-copy it answers page faults
 * without QEMU, which could answer only behind everything that it has written already.
 *
 *     unknown ── pages of the stream are the same here ──▶ trusted
 *        └────── one of them is not, or cannot be read ──▶ refused
 *
 * Nothing is taken on the word of an address alone: a block is trusted once several different pages that
 * QEMU itself sent, after the guest had stopped, were found at their places.
 *
 * Every page leaves once. What was taken here is dropped from the stream when QEMU comes to it, and what
 * the stream has brought is not taken here.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { type PageBatch, PageKind, type PageRange, type RamLayout } from '@vmferry/engine/guest';
import { PageSet } from '@vmferry/engine/postcopy/page-set';
import { type BlockIndex, bytes, PAGE_BYTES, pages, type Round } from '@vmferry/engine/units';
import { scanZero } from '@vmferry/native/kernels';

/** So many different pages have to be the same in the stream and here. */
const PROOFS = 4;
/** Room before the content for the list of a batch of one window. */
const HEADROOM_BYTES = 2048;

type Trust = 'unknown' | 'trusted' | 'refused';

interface Block {
  readonly address: number;
  trust: Trust;
  readonly proofs: Buffer[];
}

export class StoppedMemory {
  readonly #fd: number;
  readonly #blocks: readonly (Block | undefined)[];
  /** What QEMU said that the destination lacks. */
  readonly #missing: PageSet;
  /** What the stream has brought since the guest stopped. */
  readonly #brought: PageSet;
  readonly #taken: PageSet;
  readonly #scratch = Buffer.allocUnsafeSlow(PAGE_BYTES);
  #closed = false;

  /**
   * `addresses`: see `locateBlocks`. Undefined where the process cannot be read (another user, a container,
   * a hardened host): then QEMU has to be asked for every page.
   */
  static open(
    pid: number,
    layout: RamLayout,
    addresses: ReadonlyMap<string, number>,
  ): StoppedMemory | undefined {
    // Huge pages have to travel whole, which QEMU's own answers do.
    const usable = layout.blocks.map(({ name, hostPageBytes }) =>
      hostPageBytes === PAGE_BYTES ? addresses.get(name) : undefined,
    );
    if (usable.every((address) => address === undefined)) return undefined;
    try {
      return new StoppedMemory(openSync(`/proc/${pid}/mem`, 'r'), layout, usable);
    } catch {
      return undefined;
    }
  }

  private constructor(fd: number, layout: RamLayout, addresses: readonly (number | undefined)[]) {
    this.#fd = fd;
    this.#blocks = addresses.map((address) =>
      address === undefined ? undefined : { address, trust: 'unknown', proofs: [] },
    );
    const sizes = layout.blocks.map((block) => pages(block.bytes / PAGE_BYTES));
    this.#missing = new PageSet(sizes);
    this.#brought = new PageSet(sizes);
    this.#taken = new PageSet(sizes);
  }

  /** QEMU tells the destination to drop these pages: they are going to be sent. */
  discarded({ block, first, count }: PageRange): void {
    for (let page = first as number; page < first + count; page += 1) this.#missing.add(block, page);
  }

  /**
   * Every batch of the stream from the stop on passes here. Takes it over and gives what is left of it, or
   * nothing.
   */
  admit(batch: PageBatch): PageBatch | undefined {
    if (this.#blocks[batch.block]?.trust === 'unknown') this.#prove(batch);
    const kept = this.#withoutTaken(batch);
    if (kept) for (const page of kept.pages) this.#brought.add(kept.block, page);
    return kept;
  }

  /**
   * The pages of the range that have not left yet, in their order. `sent`: all of them have. Undefined where
   * that cannot be told or done, and QEMU has to be asked.
   */
  take({ block, first, count }: PageRange, round: Round): PageBatch | 'sent' | undefined {
    const home = this.#blocks[block];
    if (home?.trust !== 'trusted' || this.#closed) return undefined;
    const wanted: number[] = [];
    let known = 0;
    for (let page = first as number; page < first + count; page += 1) {
      if (!this.#missing.has(block, page)) continue;
      known += 1;
      if (!this.#brought.has(block, page) && !this.#taken.has(block, page)) wanted.push(page);
    }
    if (wanted.length === 0) return known > 0 ? 'sent' : undefined;
    const batch = this.#read(home, block, wanted, round);
    if (!batch) {
      home.trust = 'refused';
      return undefined;
    }
    for (const page of wanted) this.#taken.add(block, page);
    return batch;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  #read(home: Block, block: BlockIndex, wanted: readonly number[], round: Round): PageBatch | undefined {
    const buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + wanted.length * PAGE_BYTES);
    const content = buffer.subarray(HEADROOM_BYTES);
    for (let at = 0; at < wanted.length; ) {
      let run = 1;
      while (at + run < wanted.length && wanted[at + run] === wanted[at]! + run) run += 1;
      const piece = content.subarray(at * PAGE_BYTES, (at + run) * PAGE_BYTES);
      if (!this.#readAt(piece, home.address + wanted[at]! * PAGE_BYTES)) return undefined;
      at += run;
    }
    const zero = new Uint8Array(wanted.length);
    scanZero(content, PAGE_BYTES, zero);
    const kinds = zero.map((isZero) => (isZero ? PageKind.zero : PageKind.raw));
    return {
      type: 'pages',
      block,
      round,
      lane: 'express',
      pages: Uint32Array.from(wanted),
      kinds,
      content: content.subarray(
        0,
        closeRanks(content, (index) => zero[index] === 0),
      ),
      headroomBytes: bytes(HEADROOM_BYTES),
      release: () => {},
    };
  }

  #readAt(into: Buffer, address: number): boolean {
    try {
      return readSync(this.#fd, into, 0, into.length, BigInt(address)) === into.length;
    } catch {
      return false;
    }
  }

  /** Compares raw pages of the batch with what lies here. */
  #prove({ block, pages: numbers, kinds, content }: PageBatch): void {
    const home = this.#blocks[block]!;
    let at = 0;
    for (const [index, page] of numbers.entries()) {
      if (kinds[index] !== PageKind.raw) continue;
      const sent = content.subarray(at, at + PAGE_BYTES);
      at += PAGE_BYTES;
      if (
        !this.#readAt(this.#scratch, home.address + page * PAGE_BYTES) ||
        this.#scratch.compare(sent) !== 0
      ) {
        home.trust = 'refused';
        return;
      }
      // Pages that are all the same would prove any place.
      if (home.proofs.some((proof) => proof.compare(sent) === 0)) continue;
      home.proofs.push(Buffer.from(sent));
      if (home.proofs.length < PROOFS) continue;
      home.trust = 'trusted';
      home.proofs.length = 0;
      return;
    }
  }

  #withoutTaken(batch: PageBatch): PageBatch | undefined {
    const { block, pages: numbers, kinds, content } = batch;
    const stays = (page: number): boolean => !this.#taken.has(block, page);
    const kept = numbers.filter(stays);
    if (kept.length === numbers.length) return batch;
    if (kept.length === 0) {
      batch.release();
      return undefined;
    }
    const raw = numbers.filter((_, index) => kinds[index] === PageKind.raw);
    return {
      ...batch,
      pages: kept,
      kinds: kinds.filter((_, index) => stays(numbers[index]!)),
      content: content.subarray(
        0,
        closeRanks(content, (index) => stays(raw[index]!)),
      ),
    };
  }
}

/** Moves the pages that stay together, in place; returns how many bytes they take. */
function closeRanks(content: Uint8Array, stays: (index: number) => boolean): number {
  let to = 0;
  for (let from = 0; from < content.length; from += PAGE_BYTES) {
    if (!stays(from / PAGE_BYTES)) continue;
    if (to !== from) content.copyWithin(to, from, from + PAGE_BYTES);
    to += PAGE_BYTES;
  }
  return to;
}
