/**
 * A workload from two measurements: how many different pages a guest dirtied in a short time and in a longer one.
 *
 * A working set of W pages that are written at random, each `often` times a second, has W (1 - exp(-often t))
 * different ones after t seconds: two times give both. Pages that are written now and then only, beyond the longer
 * time, are not seen.
 */
import type { Workload } from '../simulator/dirty/regions.ts';

export interface DirtyCount {
  readonly seconds: number;
  readonly pages: number;
}

/** A working set that is all dirty in the shorter time is written at least so often in it. */
const MOST_OFTEN = 8;

export function fitWorkingSet(memoryPages: number, short: DirtyCount, long: DirtyCount): Workload {
  const dirtied = Math.min(short.pages, memoryPages);
  if (dirtied < 1) return { kind: 'idle' };
  const grown = Math.max(dirtied, Math.min(long.pages, memoryPages)) / dirtied;
  const growth = (often: number): number =>
    Math.expm1(-often * long.seconds) / Math.expm1(-often * short.seconds);
  // It grows less the more often pages are written: halve the interval until that is found.
  let low = 1e-9;
  let high = MOST_OFTEN / short.seconds;
  for (let step = 0; step < 80; step += 1) {
    const middle = Math.sqrt(low * high);
    if (growth(middle) > grown) low = middle;
    else high = middle;
  }
  const often = Math.sqrt(low * high);
  const set = -dirtied / Math.expm1(-often * short.seconds);
  const pages = Math.max(1, Math.min(memoryPages, Math.round(set)));
  // Where the set is all of memory the shorter time tells how often its pages are written.
  const everywhere = Math.min(MOST_OFTEN, -Math.log1p(-dirtied / memoryPages) / short.seconds) * memoryPages;
  const rate = set > memoryPages ? everywhere : often * set;
  return { kind: 'uniform', pagesPerSec: rate, region: { first: 0, pages } };
}
