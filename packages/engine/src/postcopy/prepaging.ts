/**
 * What goes along with a page that a vCPU waits for (pre-paging).
 *
 * A fault out of the blue brings its neighbourhood, aligned: a guest wants a third of it within moments, and
 * each page saves a fault, which costs more than the link's time for all of them. A fault at the end of what an
 * earlier one brought is part of a sequential walk: from there on twice as much comes each time, forward.
 */
import type { PageRange } from '../guest.ts';
import { type BlockIndex, PAGE_BYTES, pages } from '../units.ts';

/** A quarter of a mebibyte: at 1 Gbit/s 32 pages gave more faults, and 128 made each wait longer. */
const USUAL = 64;
const FEWEST = 8;
/** The next fault waits behind a neighbourhood: no longer than two or three faults take. */
export const NEIGHBOURHOOD_MS = 2;
/** What is left of a page on the link, compressed, as a rule. */
export const PACKED_SHARE = 1 / 2;
/** A walk's windows double up to so many neighbourhoods: what the link carries in the time of a few faults. */
const WALK_GROWTH = 4;
/** Walks that are followed at a time, one for each of a few busy threads. */
const WALKS = 8;

/** What a guest touches right behind a page, before the neighbourhood can have come. */
const ALONG = 4;

interface Walk {
  readonly block: BlockIndex;
  readonly end: number;
  readonly size: number;
}

/** Pages around a fault out of the blue that go along with it, a power of two; 0 stands for an unknown rate. */
export function neighbourhood(linkBytesPerSec: number): number {
  if (linkBytesPerSec === 0) return USUAL;
  const count = (linkBytesPerSec * NEIGHBOURHOOD_MS) / 1000 / (PAGE_BYTES * PACKED_SHARE);
  return Math.min(USUAL, Math.max(FEWEST, 2 ** Math.floor(Math.log2(count))));
}

/**
 * The answer to a fault itself: the page first, and a few behind it, which cost less than the faults that every third
 * one would bring. It may reach beyond the block's end.
 */
export function answerAlong(range: PageRange): PageRange {
  return { ...range, count: pages(Math.max(range.count, ALONG)) };
}

export class Prepaging {
  #walks: Walk[] = [];

  /**
   * The pages to be sent with this one, it among them; they may reach beyond the block's end. `least`: see
   * `neighbourhood`.
   */
  around(block: BlockIndex, page: number, least: number = USUAL): PageRange {
    const walk = this.#walks.find(
      (each) => each.block === block && page >= each.end && page < each.end + each.size,
    );
    const size = walk ? Math.min(WALK_GROWTH * least, walk.size * 2) : least;
    const first = walk ? page : page - (page % least);
    const rest = this.#walks.filter((each) => each !== walk);
    this.#walks = [{ block, end: first + size, size }, ...rest].slice(0, WALKS);
    return { block, first: pages(first), count: pages(size) };
  }
}
