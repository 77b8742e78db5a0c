import type { BatchLimits } from '@vmferry/engine/carriage/batch-limits';
import type { PageBatch } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import { type BlockIndex, PAGE_BYTES, type Round } from '@vmferry/engine/units';
import { BatchBuilder, type ContentAllocator } from './batch-builder.ts';
import { StreamError } from './error.ts';
import { RamFlag, RecordType } from './format.ts';
import type { Intake } from './intake.ts';
import type { BlockTable } from './layout.ts';
import {
  flagsOfWord,
  PAGE_RECORD_BYTES,
  pageOfWord,
  SECTION_CLOSE_BYTES,
  SECTION_HEADER_BYTES,
  writeName,
  writeSectionClose,
  writeSectionHeader,
  writeWord,
  ZERO_RECORD_BYTES,
} from './ram-records.ts';
import { RecordRun } from './record-run.ts';

/** True when the page answers a fault: its batch takes the express lane. */
export type UrgentPredicate = (block: BlockIndex, page: number) => boolean;

const PAGE_SAME_BLOCK = RamFlag.page | RamFlag.sameBlock;
const FILL_SAME_BLOCK = RamFlag.fill | RamFlag.sameBlock;

/** Turns page records into batches, which it puts into `out`. */
export class PageReader {
  round = 1 as Round;
  isUrgent: UrgentPredicate | undefined;
  /** Post-copy: batches of huge-page blocks hold whole host pages. Takes effect with the next batch. */
  wholeHostPages = false;
  /** Takes effect with the next batch. */
  limits: BatchLimits;
  rawPages = 0;
  zeroPages = 0;

  readonly #out: PageBatch[];
  readonly #batch: BatchBuilder;
  readonly #run = new RecordRun();
  readonly #maxHostPageBytes: number;
  #blocks: BlockTable | undefined;
  /** The block that records with the same-block flag mean. */
  #block = -1 as BlockIndex;
  #blockPages = 0;
  /** Pages that the open batch takes as one, 1 where host pages do not matter. */
  #unit = 1;
  /** The newest page that left in a batch: see `resendLast`. */
  #last: { block: BlockIndex; page: number; kind: number } | undefined;
  readonly #lastContent = new Uint8Array(PAGE_BYTES);

  constructor(out: PageBatch[], limits: BatchLimits, maxHostPageBytes: number, allocate: ContentAllocator) {
    this.#out = out;
    this.#batch = new BatchBuilder(allocate);
    this.limits = limits;
    this.#maxHostPageBytes = maxHostPageBytes;
  }

  set blocks(blocks: BlockTable) {
    this.#blocks = blocks;
  }

  get hasBlock(): boolean {
    return this.#block >= 0;
  }

  get blockName(): string {
    return this.#blocks!.layout.blocks[this.#block]!.name;
  }

  selectBlock(name: string): void {
    this.#block = this.#blocks!.find(name);
    this.#blockPages = this.#blocks!.pagesOf(this.#block);
  }

  /** Reads records that lie whole in the chunk. True if it stopped because a batch is out. */
  readRun(input: Intake): boolean {
    if (!this.hasBlock || input.carried > 0) return false;
    const { chunk } = input;
    const end = chunk.length;
    let at = input.pos;
    while (this.#out.length === 0) {
      if (this.#inOneLane) {
        at = this.#readFast(chunk, at);
        if (this.#out.length > 0) break;
      }
      // Whatever the fast way leaves: the first pages of a batch, and what it does not understand.
      if (end - at < ZERO_RECORD_BYTES) break;
      const flags = flagsOfWord(chunk, at);
      if (flags === PAGE_SAME_BLOCK) {
        if (end - at < PAGE_RECORD_BYTES) break;
        this.addRaw(pageOfWord(chunk, at), chunk, at + 8);
        at += PAGE_RECORD_BYTES;
      } else if (flags === FILL_SAME_BLOCK && chunk[at + 8] === 0) {
        this.addFilled(pageOfWord(chunk, at), 0);
        at += ZERO_RECORD_BYTES;
      } else break;
    }
    input.pos = at;
    return this.#out.length > 0;
  }

  /** Do pages of the present block all belong to the open batch, whatever their number? */
  get #inOneLane(): boolean {
    const { count, block, lane } = this.#batch;
    return (
      count > 0 && block === this.#block && lane === 'bulk' && this.#unit === 1 && this.isUrgent === undefined
    );
  }

  /** Reads what it can into the open batch and sends that out when it is full. */
  #readFast(chunk: Buffer, from: number): number {
    const batch = this.#batch;
    const { count, contentEnd } = batch;
    const at = this.#run.read(chunk, from, this.#blockPages, batch);
    const raw = (batch.contentEnd - contentEnd) / PAGE_BYTES;
    this.rawPages += raw;
    this.zeroPages += batch.count - count - raw;
    if (batch.full) this.flush();
    return at;
  }

  addRaw(page: number, source: Buffer, from: number): void {
    this.#admit(page);
    const to = this.#batch.addRaw(page);
    source.copy(this.#batch.content, to, from, from + PAGE_BYTES);
    this.rawPages++;
    if (this.#batch.full) this.flush();
  }

  addFilled(page: number, byte: number): void {
    this.#admit(page);
    if (byte === 0) {
      this.#batch.addZero(page);
      this.zeroPages++;
    } else {
      const to = this.#batch.addRaw(page);
      this.#batch.content.fill(byte, to, to + PAGE_BYTES);
      this.rawPages++;
    }
    if (this.#batch.full) this.flush();
  }

  /** Sends the open batch out. Half a huge page cannot go: see `inHostPage`. */
  flush(): void {
    if (this.#batch.count === 0) return;
    if (this.inHostPage) {
      throw new StreamError(
        `A huge page of block ${this.blockName} is cut off at page ${this.#batch.lastPage}.`,
      );
    }
    const kind = this.#batch.lastKind;
    this.#last = { block: this.#batch.block, page: this.#batch.lastPage, kind };
    if (kind === PageKind.raw) {
      const end = this.#batch.contentEnd;
      this.#lastContent.set(this.#batch.content.subarray(end - PAGE_BYTES, end));
    }
    this.#out.push(this.#batch.take()!);
  }

  /** Does the open batch end within a host page that has to stay whole? */
  get inHostPage(): boolean {
    return this.#unit > 1 && this.#batch.count % this.#unit !== 0;
  }

  drop(): void {
    this.#batch.drop();
  }

  /**
   * A whole RAM section that sends the newest page again, with its block's name. Before verbatim bytes it
   * puts the destination where the source is: their next same-block record means that block, whatever order
   * the batches came in. Only for a guest that does not run on the destination. Undefined before any page.
   */
  resendLast(sectionId: number): Uint8Array | undefined {
    const last = this.#last;
    if (last === undefined) return undefined;
    const name = Buffer.from(this.#blocks!.layout.blocks[last.block]!.name, 'latin1');
    const raw = last.kind === PageKind.raw;
    const content = raw ? this.#lastContent : Buffer.alloc(1);
    const out = Buffer.alloc(SECTION_HEADER_BYTES + 9 + name.length + content.length + SECTION_CLOSE_BYTES);
    let at = writeSectionHeader(out, 0, RecordType.sectionPart, sectionId);
    at = writeWord(out, at, last.page, raw ? RamFlag.page : RamFlag.fill);
    at = writeName(out, at, name);
    out.set(content, at);
    writeSectionClose(out, at + content.length, sectionId);
    return out;
  }

  /** Checks the page and sees to it that the open batch is the one it belongs to. */
  #admit(page: number): void {
    if (page >= this.#blockPages) {
      throw new StreamError(
        `Page ${page} lies outside block ${this.blockName} of ${this.#blockPages} pages.`,
      );
    }
    const batch = this.#batch;
    if (batch.count === 0) this.#open(page);
    else if (this.inHostPage) {
      if (batch.block !== this.#block || page !== batch.lastPage + 1) {
        throw new StreamError(`A huge page of block ${this.blockName} is broken off by page ${page}.`);
      }
    } else if (batch.block !== this.#block || this.#laneOf(page) !== batch.lane) {
      this.flush();
      this.#open(page);
    } else if (page % this.#unit !== 0) this.#refuseStart(page);
  }

  #open(page: number): void {
    const hostPage = this.wholeHostPages ? this.#blocks!.hostPageBytesOf(this.#block) : PAGE_BYTES;
    if (hostPage > this.#maxHostPageBytes) {
      throw new StreamError(
        `Block ${this.blockName} has pages of ${hostPage} bytes; at most ${this.#maxHostPageBytes} are carried whole.`,
      );
    }
    const unit = hostPage / PAGE_BYTES;
    this.#unit = unit;
    if (page % unit !== 0) this.#refuseStart(page);
    this.#batch.open(this.#block, this.#laneOf(page), this.round, this.#limitsFor(unit));
  }

  /** Host pages that stay whole have to fit whatever their pages are. */
  #limitsFor(unit: number): BatchLimits {
    if (unit === 1) return this.limits;
    const pages = Math.max(unit, Math.floor(this.limits.rawPages / unit) * unit);
    return { rawPages: pages, pages };
  }

  #laneOf(page: number): 'bulk' | 'express' {
    return this.isUrgent?.(this.#block, page) === true ? 'express' : 'bulk';
  }

  #refuseStart(page: number): never {
    throw new StreamError(`A huge page of block ${this.blockName} does not begin with page ${page}.`);
  }
}
