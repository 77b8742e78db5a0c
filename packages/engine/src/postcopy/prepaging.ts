/**
 * What goes along with a page that a vCPU waits for (pre-paging).
 *
 * A fault out of the blue brings its neighbourhood, aligned: a guest wants a third of it within moments, and
 * each page saves a fault, which costs more than the link's time for all of them. A fault at the end of what an
 * earlier one brought is part of a sequential walk: from there on twice as much comes each time, forward.
 */
import type { PageRange } from '../guest.ts';
import { type BlockIndex, pages } from '../units.ts';

/** A quarter of a mebibyte: 32 gave more faults, 128 made each wait longer. */
const LEAST = 64;
/** A mebibyte: as much as the link carries in the time of a few faults. */
const MOST = 256;
/** Walks that are followed at a time, one for each of a few busy threads. */
const WALKS = 8;

interface Walk {
  readonly block: BlockIndex;
  readonly end: number;
  readonly size: number;
}

export class Prepaging {
  #walks: Walk[] = [];

  /** The pages to be sent with this one, it among them; they may reach beyond the block's end. */
  around(block: BlockIndex, page: number): PageRange {
    const walk = this.#walks.find(
      (each) => each.block === block && page >= each.end && page < each.end + each.size,
    );
    const size = walk ? Math.min(MOST, walk.size * 2) : LEAST;
    const first = walk ? page : page - (page % LEAST);
    const rest = this.#walks.filter((each) => each !== walk);
    this.#walks = [{ block, end: first + size, size }, ...rest].slice(0, WALKS);
    return { block, first: pages(first), count: pages(size) };
  }
}
