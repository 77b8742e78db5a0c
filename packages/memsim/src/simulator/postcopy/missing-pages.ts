/**
 * The pages that are still missing: a share of each cell. Pages come with their neighbours, so where some have come
 * all have: a stretch has a part that is as it was at first, and a part where nothing is missing.
 */
import { type Cells, stretchAt } from '../dirty/cells.ts';
import type { Region } from '../dirty/regions.ts';
import type { Walk } from '../dirty/writers.ts';

/** Less than this of a page is none. */
const NOTHING = 0.5;

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

  /** Takes this share of a cell out; gives the pages. */
  take(cell: number, share: number): number {
    const taken = Math.min(this.share[cell]!, share);
    const count = taken * this.cells.count[cell]!;
    this.share[cell]! -= taken;
    this.#ofStretch[this.cells.stretch[cell]!]! -= count;
    this.#total -= count;
    return count;
  }

  /** Takes so many pages of a stretch out, or what there is; gives how many. */
  takeFrom(stretch: number, count: number): number {
    const here = this.#ofStretch[stretch]!;
    if (here <= 0 || count <= 0) return 0;
    const share = Math.min(1, count / here);
    let taken = 0;
    for (let cell = this.cells.from[stretch]!; cell < this.cells.from[stretch + 1]!; cell += 1)
      taken += this.take(cell, this.share[cell]! * share);
    return taken;
  }

  /** Takes pages out that a walk brings while it passes so many, from what lies before it on. */
  takeAlong(region: Region, { stretch, pages }: Ahead, passes: number, count: number): void {
    const [begin, end] = this.#bounds(region);
    const met: { readonly stretch: number; readonly missing: number }[] = [];
    let missing = 0;
    let left = passes;
    for (let at = stretch; left > 0 && met.length < end - begin; at = at + 1 < end ? at + 1 : begin) {
      const long = met.length === 0 ? pages : this.cells.pages[at]!;
      const here = this.#ofStretch[at]! * Math.min(1, left / long);
      met.push({ stretch: at, missing: here });
      missing += here;
      left -= long;
    }
    if (missing <= 0) return;
    // Within one stretch the walk may have brought more than its even share.
    const share = met.length === 1 ? count / missing : Math.min(1, count / missing);
    for (const part of met) this.takeFrom(part.stretch, part.missing * share);
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
