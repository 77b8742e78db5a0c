/**
 * Which pages the destination still lacks after the switchover to post-copy, and in which order they are
 * fetched. Background pages bubble out around the most recent faults, forward rather than backward
 * (pre-paging: Hines and Gopalan, "Post-copy based live virtual machine migration using adaptive
 * pre-paging and dynamic self-ballooning", VEE 2009), then the rest follows in sequence.
 *
 *     a page's life:   missing ──next, fault, prefetch──▶ asked ──arrived, written off──▶ there
 *                         ▲ │                                                              │
 *                         │ └────────────────── sent, arrived unasked ───────────────────▶│
 *                         └────────────────────────── discarded ──────────────────────────┘
 *
 * Memory: one bit per page (64 GiB take 2 MiB), and the requests in flight.
 */
import type { PageRange, RamLayout } from '../guest.ts';
import { type BlockIndex, type Millis, PAGE_BYTES, type Pages, pages as pageCount } from '../units.ts';
import { BackgroundBudget } from './budget.ts';
import { Outstanding } from './outstanding.ts';
import { PageBitmap } from './page-bitmap.ts';

export interface PostcopyOrderOptions {
  /** Pages in flight in the background at most, when no faults come. 2048 unless told. */
  readonly maxBackgroundPages?: number;
  /** Pages in flight in the background at least, however many faults come. 8 unless told, never below 1. */
  readonly minBackgroundPages?: number;
  /** Smallest and largest number of neighbours fetched along with a fault. 8 and 64 unless told. */
  readonly minWindowPages?: number;
  readonly maxWindowPages?: number;
}

/** Pivots that the background bubbles out around. */
const MAX_PIVOTS = 6;
/** How far from a pivot pages are fetched before others, in pages (8 MiB). */
const REACH_PAGES = 2048;
/** Two faults this close belong together, in host pages. */
const NEAR_PAGES = 256;
/** Pages that one pivot yields before the next one's turn. */
const FORWARD_PAGES = 16;
const BACKWARD_PAGES = 8;

interface Block {
  readonly index: BlockIndex;
  readonly missing: PageBitmap;
  /** Pages that are mapped at once and travel whole. */
  readonly hostPages: number;
}

interface Pivot {
  readonly block: Block;
  /** The first page of the fault. */
  readonly at: number;
  /** The next page to look at in each direction, and where to stop (exclusive, inclusive). */
  forward: number;
  readonly forwardEnd: number;
  backward: number;
  readonly backwardEnd: number;
}

export class PostcopyOrder {
  readonly #blocks: readonly Block[];
  readonly #outstanding = new Outstanding();
  readonly #budget: BackgroundBudget;
  readonly #minWindow: number;
  readonly #maxWindow: number;
  #missing = 0;
  /** Newest first. */
  #pivots: Pivot[] = [];
  #turn = 0;
  #sequentialBlock = 0;
  #sequentialPage = 0;
  #window: number;
  #descending = false;

  /** All pages of the layout are missing. */
  constructor(layout: RamLayout, options: PostcopyOrderOptions = {}) {
    this.#blocks = layout.blocks.map((block, index) => {
      const missing = new PageBitmap(Math.ceil(block.bytes / PAGE_BYTES));
      missing.setRange(0, missing.pages);
      return {
        index: index as BlockIndex,
        missing,
        hostPages: Math.max(1, Math.floor(block.hostPageBytes / PAGE_BYTES)),
      };
    });
    for (const block of this.#blocks) this.#missing += block.missing.count;
    this.#minWindow = Math.max(1, options.minWindowPages ?? 8);
    this.#maxWindow = Math.max(this.#minWindow, options.maxWindowPages ?? 64);
    this.#window = this.#minWindow;
    this.#budget = new BackgroundBudget(options.minBackgroundPages ?? 8, options.maxBackgroundPages ?? 2048);
  }

  /** Pages that the destination lacks: never asked for, or asked for and not there yet. */
  get remainingPages(): Pages {
    return pageCount(this.#missing + this.#outstanding.pages);
  }

  /** Pages that nobody has asked for yet. */
  get missingPages(): Pages {
    return pageCount(this.#missing);
  }

  /** Pages asked from the hypervisor, on both lanes, that have not come. */
  get outstandingPages(): Pages {
    return pageCount(this.#outstanding.pages);
  }

  /** The part of `outstandingPages` that `next` handed out; `budget` bounds this one. */
  get outstandingBackgroundPages(): Pages {
    return pageCount(this.#outstanding.bulkPages);
  }

  /** The destination lacks nothing. */
  get done(): boolean {
    return this.remainingPages === 0;
  }

  /** Pages went to the destination without having been asked for (pre-copy). */
  sent(block: BlockIndex, pages: Uint32Array): void {
    const { missing } = this.#block(block);
    for (const page of pages) {
      if (page < missing.pages && missing.clear(page)) this.#missing -= 1;
    }
  }

  /** The destination threw its copies away: these pages are missing again. */
  discarded(block: BlockIndex, first: number, count: number): void {
    const { missing } = this.#block(block);
    this.#missing += missing.setRange(first, Math.min(missing.pages, first + count));
  }

  /** Pages came from the hypervisor after the switchover, asked for or not. */
  arrived(block: BlockIndex, pages: Uint32Array): void {
    const { missing } = this.#block(block);
    for (const page of pages) {
      if (page >= missing.pages) continue;
      if (missing.clear(page)) this.#missing -= 1;
      else this.#outstanding.arrived(block, page);
    }
  }

  /**
   * A vCPU waits for these pages. Returns the range to be asked for on the express lane at once: whole host
   * pages, also when it was asked for before, because the fault overtakes what waits in the background.
   */
  fault(range: PageRange, now: Millis): PageRange {
    const block = this.#block(range.block);
    const [first, end] = this.#aligned(block, range);
    this.#budget.fault(now);
    this.#adaptWindow(block, first);
    this.#pivots = this.#pivots.filter((pivot) => !near(pivot, block, first)).slice(0, MAX_PIVOTS - 1);
    this.#pivots.unshift({
      block,
      at: first,
      forward: end,
      forwardEnd: Math.min(block.missing.pages, end + reachOf(block)),
      backward: first - 1,
      backwardEnd: Math.max(0, first - reachOf(block)),
    });
    this.#turn = 0;
    this.#ask('express', block, first, end);
    return rangeOf(block, first, end);
  }

  /**
   * Neighbours worth sending along with a fault, to be asked for on the express lane right behind it. The
   * window grows while faults come close to each other and shrinks otherwise. Call it after `fault`.
   */
  prefetch(range: PageRange): PageRange[] {
    const block = this.#block(range.block);
    const [first, end] = this.#aligned(block, range);
    const window = Math.floor(this.#window / block.hostPages) * block.hostPages;
    const from = this.#descending ? Math.max(0, first - window) : end;
    const to = this.#descending ? first : Math.min(block.missing.pages, end + window);
    const ranges: PageRange[] = [];
    let page = block.missing.next(from, to);
    while (page !== -1) {
      const range = this.#run(block, page, to);
      ranges.push(rangeOf(block, range[0], range[1]));
      this.#ask('express', block, range[0], range[1]);
      page = block.missing.next(range[1], to);
    }
    return ranges;
  }

  /**
   * The next background pages, `budgetPages` of them or, where host pages must stay whole, the few more
   * that it takes. Each page is handed out once.
   */
  next(budgetPages: number): PageRange[] {
    const ranges: PageRange[] = [];
    let left = budgetPages;
    while (left > 0 && this.#missing > 0) {
      const taken = this.#nextNearPivot(left, ranges) || this.#nextInSequence(left, ranges);
      if (taken === 0) break;
      left -= taken;
    }
    return ranges;
  }

  /**
   * How many background pages may be in flight now. Few while faults come, so that none waits behind the
   * background; growing fast as soon as it is quiet; never 0, so that a guest that faults for ever arrives.
   */
  budget(now: Millis): Pages {
    return pageCount(this.#budget.at(now));
  }

  /** The hypervisor has stopped answering: what was asked for is not waited for any longer. */
  forgetOutstanding(): void {
    this.#outstanding.forget();
  }

  #nextNearPivot(budget: number, ranges: PageRange[]): number {
    while (this.#pivots.length > 0) {
      const slot = this.#turn % (this.#pivots.length * 2);
      const pivot = this.#pivots[slot >>> 1]!;
      this.#turn = slot + 1;
      const taken =
        (slot & 1) === 0
          ? this.#takeForward(pivot, Math.min(budget, FORWARD_PAGES), ranges)
          : this.#takeBackward(pivot, Math.min(budget, BACKWARD_PAGES), ranges);
      if (taken > 0) return taken;
      if (pivot.forward >= pivot.forwardEnd && pivot.backward < pivot.backwardEnd) {
        this.#pivots = this.#pivots.filter((other) => other !== pivot);
        this.#turn = 0;
      }
    }
    return 0;
  }

  #takeForward(pivot: Pivot, budget: number, ranges: PageRange[]): number {
    const { missing } = pivot.block;
    const page = missing.next(pivot.forward, pivot.forwardEnd);
    if (page === -1) {
      pivot.forward = pivot.forwardEnd;
      return 0;
    }
    const [first, end] = this.#run(pivot.block, page, Math.min(pivot.forwardEnd, page + budget));
    pivot.forward = end;
    return this.#handOut(pivot.block, first, end, ranges);
  }

  #takeBackward(pivot: Pivot, budget: number, ranges: PageRange[]): number {
    const { missing, hostPages } = pivot.block;
    const page =
      pivot.backward < pivot.backwardEnd ? -1 : missing.previous(pivot.backward, pivot.backwardEnd);
    if (page === -1) {
      pivot.backward = pivot.backwardEnd - 1;
      return 0;
    }
    const end = Math.min(missing.pages, (Math.floor(page / hostPages) + 1) * hostPages);
    let first = Math.floor(page / hostPages) * hostPages;
    if (hostPages === 1) {
      const floor = Math.max(pivot.backwardEnd, page - budget + 1);
      while (first > floor && missing.has(first - 1)) first -= 1;
    }
    pivot.backward = first - 1;
    return this.#handOut(pivot.block, first, end, ranges);
  }

  #nextInSequence(budget: number, ranges: PageRange[]): number {
    // One lap over the blocks always finds a page while one is missing: the second start covers the part
    // of the first block that lies before the cursor.
    for (let tries = 0; tries <= this.#blocks.length; tries += 1) {
      const block = this.#blocks[this.#sequentialBlock]!;
      const { missing } = block;
      const page = missing.count === 0 ? -1 : missing.next(this.#sequentialPage, missing.pages);
      if (page !== -1) {
        const [first, end] = this.#run(block, page, Math.min(missing.pages, page + budget));
        this.#sequentialPage = end;
        return this.#handOut(block, first, end, ranges);
      }
      this.#sequentialBlock = (this.#sequentialBlock + 1) % this.#blocks.length;
      this.#sequentialPage = 0;
    }
    return 0;
  }

  /** The stretch of missing pages that starts at `page`, in whole host pages. */
  #run(block: Block, page: number, limit: number): [first: number, end: number] {
    const { missing, hostPages } = block;
    if (hostPages === 1) return [page, missing.nextClear(page, limit)];
    const first = Math.floor(page / hostPages) * hostPages;
    const end = Math.max(
      first + hostPages,
      Math.floor(missing.nextClear(page, limit) / hostPages) * hostPages,
    );
    return [first, Math.min(missing.pages, end)];
  }

  #handOut(block: Block, first: number, end: number, ranges: PageRange[]): number {
    this.#ask('bulk', block, first, end);
    const last = ranges.at(-1);
    if (last !== undefined && last.block === block.index && last.first + last.count === first) {
      ranges[ranges.length - 1] = rangeOf(block, last.first, end);
    } else {
      ranges.push(rangeOf(block, first, end));
    }
    return end - first;
  }

  #ask(lane: 'bulk' | 'express', block: Block, first: number, end: number): void {
    const cleared = block.missing.clearRange(first, end);
    if (cleared === 0) return;
    this.#missing -= cleared;
    this.#outstanding.asked(lane, block.index, first, end, cleared);
  }

  #adaptWindow(block: Block, first: number): void {
    const pivot = this.#pivots.find((candidate) => near(candidate, block, first));
    if (pivot === undefined) {
      this.#window = Math.max(this.#minWindow, this.#window >>> 1);
      this.#descending = false;
      return;
    }
    this.#window = Math.min(this.#maxWindow, this.#window * 2);
    this.#descending = first < pivot.at;
  }

  #aligned(block: Block, range: PageRange): [first: number, end: number] {
    const { missing, hostPages } = block;
    const first = Math.floor(range.first / hostPages) * hostPages;
    const end = Math.ceil((range.first + Math.max(1, range.count)) / hostPages) * hostPages;
    if (range.first < 0 || first >= missing.pages || range.first + range.count > missing.pages) {
      throw new RangeError(
        `pages ${range.first} to ${range.first + range.count} are outside block ${range.block}`,
      );
    }
    return [first, Math.min(missing.pages, end)];
  }

  #block(index: BlockIndex): Block {
    const block = this.#blocks[index];
    if (block === undefined) throw new RangeError(`there is no block ${index}`);
    return block;
  }
}

/** Whether a fault is so close to an earlier one that it takes that one's place. */
function near(pivot: Pivot, block: Block, page: number): boolean {
  return pivot.block === block && Math.abs(page - pivot.at) <= NEAR_PAGES * block.hostPages;
}

/** How far the background bubbles out from a pivot in each direction, in whole host pages. */
function reachOf(block: Block): number {
  return Math.ceil(Math.max(REACH_PAGES, 4 * block.hostPages) / block.hostPages) * block.hostPages;
}

function rangeOf(block: Block, first: number, end: number): PageRange {
  return { block: block.index, first: pageCount(first), count: pageCount(end - first) };
}
