/**
 * Pages that a hypervisor has handed over in post-copy and that wait for the link.
 *
 * A hypervisor such as QEMU chooses the order of the background itself, going on from the last page that it
 * was asked for, and what it has written cannot be asked for again. So the order is made here: what lies
 * near the last faults goes first, forward before backward (pre-paging after Hines and Gopalan, VEE 2009),
 * then what has waited longest. A fault on a page that waits here is answered from here.
 */
import { weightOf } from '../carriage/batch-limits.ts';
import type { PageBatch, PageRange } from '../guest.ts';
import type { BlockIndex } from '../units.ts';
import { cutBatch } from './cut.ts';

/** A page this far from a fault is no longer near it: 16 MiB. */
const NEAR_PAGES = 4096;
/** Going backward counts as further away. */
const BACKWARD_COST = 4;
const PIVOTS = 4;

interface Pivot {
  readonly block: BlockIndex;
  readonly page: number;
}

interface Waiting {
  readonly batch: PageBatch;
  readonly lowest: number;
  readonly highest: number;
}

export class Backlog {
  readonly #waiting: Waiting[] = [];
  readonly #pivots: Pivot[] = [];
  #bytes = 0;
  #weight = 0;

  /** Content bytes that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /** See `weightOf`: what waits has to be looked through for each batch that goes, zeroes or not. */
  get weight(): number {
    return this.#weight;
  }

  get empty(): boolean {
    return this.#waiting.length === 0;
  }

  add(batch: PageBatch): void {
    this.#insert(this.#waiting.length, batch);
  }

  #insert(index: number, batch: PageBatch): void {
    let lowest = Number.POSITIVE_INFINITY;
    let highest = 0;
    for (const page of batch.pages) {
      if (page < lowest) lowest = page;
      if (page > highest) highest = page;
    }
    this.#waiting.splice(index, 0, { batch, lowest, highest });
    this.#bytes += batch.content.length;
    this.#weight += weightOf(batch.content.length, batch.pages.length);
  }

  /**
   * A vCPU waits for these pages: takes out those of them that wait here, most often none. What lies beside
   * them in their batches stays.
   */
  fault(range: PageRange): PageBatch[] {
    this.#pivots.unshift({ block: range.block, page: range.first + range.count });
    if (this.#pivots.length > PIVOTS) this.#pivots.pop();
    return this.take(range);
  }

  /** Takes out the pages of the range that wait here. */
  take({ block, first, count }: PageRange): PageBatch[] {
    const found: PageBatch[] = [];
    const within = (page: number): boolean => page >= first && page < first + count;
    for (let index = 0; index < this.#waiting.length; ) {
      const { batch, lowest, highest } = this.#waiting[index]!;
      const apart = batch.block !== block || highest < first || lowest >= first + count;
      const from = apart ? -1 : batch.pages.findIndex(within);
      if (from < 0) {
        index += 1;
        continue;
      }
      let to = from + 1;
      while (to < batch.pages.length && within(batch.pages[to]!)) to += 1;
      const { before, middle, after } = cutBatch(this.#remove(index), from, to);
      if (middle) found.push(middle);
      if (before) this.#insert(index++, before);
      // There may be more of the range in it.
      if (after) this.#insert(index, after);
    }
    return found;
  }

  /** The batch that goes next, or none. */
  next(): PageBatch | undefined {
    if (this.#waiting.length === 0) return undefined;
    let best = 0;
    let bestCost = Number.POSITIVE_INFINITY;
    for (const [index, waiting] of this.#waiting.entries()) {
      const cost = this.#cost(waiting);
      if (cost < bestCost) {
        best = index;
        bestCost = cost;
      }
    }
    return this.#remove(best);
  }

  /** Gives everything back. */
  drop(): void {
    while (this.#waiting.length > 0) this.#remove(0).release();
  }

  #remove(index: number): PageBatch {
    const [{ batch }] = this.#waiting.splice(index, 1) as [Waiting];
    this.#bytes -= batch.content.length;
    this.#weight -= weightOf(batch.content.length, batch.pages.length);
    return batch;
  }

  /** How far from the nearest of the last faults, an older fault counting as further; infinite when not near. */
  #cost({ batch, lowest, highest }: Waiting): number {
    let least = Number.POSITIVE_INFINITY;
    for (const [age, pivot] of this.#pivots.entries()) {
      if (pivot.block !== batch.block) continue;
      const forward = lowest >= pivot.page ? lowest - pivot.page : 0;
      const backward = highest < pivot.page ? (pivot.page - highest) * BACKWARD_COST : 0;
      const cost = (forward + backward + 1) * (age + 1);
      if (cost <= NEAR_PAGES) least = Math.min(least, cost);
    }
    return least;
  }
}
