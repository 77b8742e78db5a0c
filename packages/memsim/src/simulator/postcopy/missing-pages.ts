/**
 * The pages that are still missing: a share of each cell. Pages come with their neighbours, so where some have come
 * all have: a stretch has a part that is as it was at first, and a part where nothing is missing.
 */
import type { AccessRates } from '../dirty/access-rates.ts';
import { type Cells, stretchAt } from '../dirty/cells.ts';
import type { Region } from '../dirty/regions.ts';
import type { Walk } from '../dirty/writer.ts';

/** Less than this of a page is none. */
const NOTHING = 0.5;
/** Accesses a second: fewer are none. */
const NEVER = 1e-9;

/** Of so few that are expected, two do not meet. */
const FEW = 1e-3;

/** The chance of none where so many are expected at random. */
function spared(expected: number): number {
  return expected < FEW ? 1 - expected + (expected * expected) / 2 : Math.exp(-expected);
}

/** What lies before a walk. */
export interface Ahead {
  readonly stretch: number;
  /** Pages to the first that is missing, if none is right here. */
  readonly clearPages: number;
  /** Pages to the end of this stretch, and the share of them that nothing was brought to yet. */
  readonly pages: number;
  readonly untouched: number;
  /** Missing share of what is untouched. */
  readonly density: number;
}

/** Where a walk goes on: a stretch, and pages to its end. */
type Place = Pick<Ahead, 'stretch' | 'pages'>;

export class MissingPages {
  readonly cells: Cells;
  readonly share: Float64Array;
  readonly #ofStretch: Float64Array;
  readonly #atFirst: Float64Array;
  /** Missing share at first of those parts of memory that lacked any. */
  readonly density: number;
  #total = 0;
  /** Where the background is. */
  #cursor = 0;

  /** Takes `share` over. */
  constructor(cells: Cells, share: Float64Array) {
    this.cells = cells;
    this.share = share;
    this.#ofStretch = new Float64Array(cells.first.length);
    for (let cell = 0; cell < share.length; cell += 1) {
      const count = share[cell]! * cells.count[cell]!;
      this.#ofStretch[cells.stretch[cell]!]! += count;
      this.#total += count;
    }
    this.#atFirst = this.#ofStretch.slice();
    let lacking = 0;
    for (let stretch = 0; stretch < this.#atFirst.length; stretch += 1)
      if (this.#atFirst[stretch]! > NOTHING) lacking += cells.pages[stretch]!;
    this.density = lacking === 0 ? 0 : Math.min(1, this.#total / lacking);
  }

  get total(): number {
    return this.#total;
  }

  get none(): boolean {
    return this.#total <= NOTHING;
  }

  ofStretch(stretch: number): number {
    return this.#ofStretch[stretch]!;
  }

  /** The share of a stretch that is as it was at first. */
  untouched(stretch: number): number {
    const first = this.#atFirst[stretch]!;
    return first > 0 ? Math.max(0, this.#ofStretch[stretch]! / first) : 0;
  }

  /** What a walk is about to come to; undefined when nothing of its region is missing. */
  ahead({ region, at }: Walk): Ahead | undefined {
    const { first, pages } = this.cells;
    const page = region.first + Math.min(region.pages - 1, at);
    const [begin, end] = this.#bounds(region);
    let stretch = stretchAt(this.cells, Math.floor(page));
    let clearPages = 0;
    for (let looked = 0; looked <= end - begin; looked += 1) {
      const from = looked === 0 ? page - first[stretch]! : 0;
      const left = Math.max(1e-6, pages[stretch]! - from);
      const missing = this.#ofStretch[stretch]!;
      if (missing > NOTHING) {
        const density = this.#atFirst[stretch]! / pages[stretch]!;
        // What a walk has behind it in a stretch, it has brought: the rest lies ahead.
        return {
          stretch,
          clearPages,
          pages: left,
          untouched: Math.min(1, missing / (left * density)),
          density,
        };
      }
      clearPages += left;
      stretch = stretch + 1 < end ? stretch + 1 : begin;
    }
    return undefined;
  }

  /** Takes so many pages of a stretch out, or what there is; gives how many. */
  takeFrom(stretch: number, count: number): number {
    const left = this.#ofStretch[stretch]!;
    if (left <= 0 || count <= 0) return 0;
    const part = Math.min(1, count / left);
    const { share } = this;
    const pages = this.cells.count;
    const end = this.cells.from[stretch + 1]!;
    let taken = 0;
    for (let cell = this.cells.from[stretch]!; cell < end; cell += 1) {
      const missing = share[cell]!;
      const here = missing * part;
      share[cell] = missing - here;
      taken += here * pages[cell]!;
    }
    this.#ofStretch[stretch] = part === 1 ? 0 : left - taken;
    this.#total -= taken;
    return taken;
  }

  /** Accesses a second at random that come to what is missing. */
  wanted({ perSec, cells }: AccessRates): number {
    const { share } = this;
    let sum = 0;
    for (let index = 0; index < cells.length; index += 1) {
      const cell = cells[index]!;
      sum += perSec[cell]! * share[cell]!;
    }
    // What halvings have left of a cell is no demand, and its square would be no number.
    return sum < NEVER ? 0 : sum;
  }

  /**
   * The same on average over so many seconds of it, while each access brings what its neighbourhood of so many pages
   * lacks.
   */
  wantedDuring({ perSec, stretches }: AccessRates, seconds: number, around: number): number {
    const { share } = this;
    const { from, count, pages } = this.cells;
    const left = this.#ofStretch;
    const first = this.#atFirst;
    let sum = 0;
    for (let index = 0; index < stretches.length; index += 1) {
      const stretch = stretches[index]!;
      if (left[stretch]! <= 0) continue;
      const end = from[stretch + 1]!;
      let here = 0;
      let twice = 0;
      for (let cell = from[stretch]!; cell < end; cell += 1) {
        const often = perSec[cell]! * share[cell]!;
        if (often <= 0) continue;
        here += often;
        twice += (often * perSec[cell]!) / count[cell]!;
      }
      if (here <= 0) continue;
      const untouched = (pages[stretch]! * left[stretch]!) / first[stretch]!;
      const falls = (twice / here + (here * (around - 1)) / untouched) * seconds;
      sum += falls > FEW ? (here * (1 - Math.exp(-falls))) / falls : here * (1 - falls / 2);
    }
    return sum < NEVER ? 0 : sum;
  }

  /** How many pages are wanted about as often as those that fault now, which are `perSecAll` of a second. */
  wantedMost({ perSec, cells }: AccessRates, perSecAll: number): number {
    const { share } = this;
    const { count } = this.cells;
    let squares = 0;
    for (let index = 0; index < cells.length; index += 1) {
      const cell = cells[index]!;
      const here = share[cell]! * count[cell]!;
      if (here <= 0) continue;
      const often = (perSec[cell]! * share[cell]!) / perSecAll;
      squares += (often * often) / here;
    }
    return squares > 0 ? 1 / squares : Number.POSITIVE_INFINITY;
  }

  /**
   * Takes out what accesses at random come to in so many seconds, and what their neighbourhoods of so many pages lack;
   * several may fall into one of these.
   *
   * @param long so long that many come to a page that is there by then
   */
  takeAround({ perSec, stretches }: AccessRates, seconds: number, around: number, long: boolean): void {
    const { share } = this;
    const { from, count, pages } = this.cells;
    const left = this.#ofStretch;
    const first = this.#atFirst;
    let total = this.#total;
    for (let index = 0; index < stretches.length; index += 1) {
      const stretch = stretches[index]!;
      const before = left[stretch]!;
      if (before <= 0) continue;
      const begin = from[stretch]!;
      const end = from[stretch + 1]!;
      let here = 0;
      for (let cell = begin; cell < end; cell += 1) here += perSec[cell]! * share[cell]!;
      if (here <= 0) continue;
      const untouched = (pages[stretch]! * before) / first[stretch]!;
      const stays = spared((here * seconds * (around - 1)) / untouched);
      let after = before;
      for (let cell = begin; cell < end; cell += 1) {
        const missing = share[cell]!;
        const all = count[cell]!;
        if (missing <= 0 || all <= 0) continue;
        const once = (perSec[cell]! * seconds) / all;
        const brought = missing * (1 - stays * (long ? spared(once) : Math.max(0, 1 - once)));
        share[cell] = missing - brought;
        after -= brought * all;
      }
      left[stretch] = after;
      total -= before - after;
    }
    this.#total = total;
  }

  /** What is missing of the pages that a walk passes, and the stretches that they are in. */
  along(
    region: Region,
    { stretch, pages }: Place,
    passes: number,
  ): { readonly missing: number; readonly met: number } {
    const [begin, end] = this.#bounds(region);
    const long = this.cells.pages;
    const ofStretch = this.#ofStretch;
    // All of memory is passed in a step by a walk of long strides.
    if (passes >= region.pages && end - begin === ofStretch.length)
      return { missing: this.#total, met: ofStretch.length };
    let missing = 0;
    let met = 0;
    let left = passes;
    for (let at = stretch; left > 0 && met < end - begin; met += 1) {
      const here = met === 0 ? pages : long[at]!;
      missing += left < here ? (ofStretch[at]! * left) / here : ofStretch[at]!;
      left -= here;
      at = at + 1 < end ? at + 1 : begin;
    }
    return { missing, met };
  }

  /** Takes pages out that a walk brings while it passes so many, from what lies before it on. */
  takeAlong(region: Region, { stretch, pages }: Place, passes: number, count: number): void {
    const [begin, end] = this.#bounds(region);
    const long = this.cells.pages;
    const ofStretch = this.#ofStretch;
    const { missing, met } = this.along(region, { stretch, pages }, passes);
    if (missing <= 0) return;
    // Within one stretch the walk may have brought more than its even share.
    const share = met === 1 ? count / missing : Math.min(1, count / missing);
    let left = passes;
    for (let index = 0, at = stretch; index < met; index += 1) {
      const here = index === 0 ? pages : long[at]!;
      if (ofStretch[at]! > 0) this.takeFrom(at, ofStretch[at]! * Math.min(1, left / here) * share);
      left -= here;
      at = at + 1 < end ? at + 1 : begin;
    }
  }

  /** The background's next pages, in order of addresses; gives how many there were. */
  takeNext(count: number): number {
    const stretches = this.#ofStretch.length;
    let taken = 0;
    for (let looked = 0; looked <= stretches && taken < count; looked += 1) {
      taken += this.takeFrom(this.#cursor, count - taken);
      if (taken < count) this.#cursor = (this.#cursor + 1) % stretches;
    }
    return taken;
  }

  #bounds(region: Region): readonly [number, number] {
    return [stretchAt(this.cells, region.first), stretchAt(this.cells, region.first + region.pages - 1) + 1];
  }
}
