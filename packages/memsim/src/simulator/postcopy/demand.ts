/** How often a guest would fault if it never had to wait. */
import { AccessRates } from '../dirty/access-rates.ts';
import type { WorkingSet } from '../dirty/working-set.ts';
import type { Span, Walk } from '../dirty/writer.ts';
import type { Ahead, MissingPages } from './missing-pages.ts';

export interface WalkDemand {
  readonly walk: Walk;
  readonly ahead: Ahead;
  /** Pages forward that a fault brings, and faults a second while it runs. */
  readonly reach: number;
  readonly faultsPerSec: number;
  /** Pages that it passes from there on, where that is known before the step. */
  readonly passes?: number;
}

export interface Demand {
  readonly rates: AccessRates;
  readonly atRandom: number;
  readonly walks: readonly WalkDemand[];
  readonly faultsPerSec: number;
  /** For so long that what is wanted at first is not wanted at the end. */
  readonly long: boolean;
}

/** Pages forward that a walk has with a fault, where its next page that is missing is so far from the end of these. */
type Reach = (gap: number) => number;

export class Demands {
  readonly #set: WorkingSet;
  readonly #missing: MissingPages;
  /** Good up to that time of the workload. */
  readonly #rates: AccessRates;
  #until = Number.NEGATIVE_INFINITY;

  constructor(set: WorkingSet, missing: MissingPages) {
    this.#set = set;
    this.#missing = missing;
    this.#rates = new AccessRates(set.cells);
  }

  /**
   * @param seconds on average over so many, from the span's begin on; 0: as it is at first
   * @param around pages that come with a fault out of the blue, itself among them
   */
  of(span: Span, seconds: number, around: number, reach: Reach): Demand {
    const { from, to } = span;
    if (from < to || from >= this.#until) {
      this.#set.access(span, this.#rates);
      this.#until = from < to ? from : this.#set.nextChange(from);
    }
    const rates = this.#rates;
    const long = seconds > 0;
    const atRandom = long ? this.#missing.wantedDuring(rates, seconds, around) : this.#missing.wanted(rates);
    const walks = this.#set.walks(span).flatMap((walk) => this.#ofWalk(walk, seconds, reach) ?? []);
    const walking = walks.reduce((sum, { faultsPerSec }) => sum + faultsPerSec, 0);
    return { rates, atRandom, walks, faultsPerSec: atRandom + walking, long };
  }

  #ofWalk(walk: Walk, seconds: number, reachOf: Reach): WalkDemand | undefined {
    const ahead = this.#missing.ahead(walk);
    if (ahead === undefined || walk.pagesPerSec <= 0) return undefined;
    // From the end of what a fault brought to the next page that is missing and touched, in untouched parts.
    const gap = 1 / Math.max(1e-6, ahead.density * walk.touched) - 1;
    const reach = reachOf(gap);
    if (seconds > 0) {
      const passes = Math.max(0, walk.pagesPerSec * seconds - ahead.clearPages);
      const untouched = this.#missing.along(walk.region, ahead, passes).missing / ahead.density;
      return { walk, ahead, reach, passes, faultsPerSec: untouched / (reach + gap) / seconds };
    }
    const often = ahead.clearPages > 0 ? 0 : (walk.pagesPerSec * ahead.untouched) / (reach + gap);
    return { walk, ahead, reach, faultsPerSec: often };
  }
}
