/**
 * Guest memory as cells: stretches of neighbouring pages that a workload treats alike, and within a stretch, where
 * some pages are favoured (Zipf), one cell for each class of favour. A set of pages is a share of each cell, so
 * it takes the same memory for a guest of any size.
 */
import { type Region, regionOf, type Workload } from './regions.ts';

/** Stretches that all of memory is cut into, where nothing asks for more. */
const STRETCHES = 512;
/** The same where each is cut again by favour. */
const FAVOURED_STRETCHES = 48;
/** Stretches in a part of memory that a workload treats apart, however small it is. */
const LEAST_STRETCHES = 8;
/** A window that moves is seen as so many stretches. */
const WINDOW_STRETCHES = 8;
const MOST_STRETCHES = 4096;
/** Parts of memory for which it is noted which stretches they are in. */
const BLOCKS = 1024;
/** Each class of favour reaches so many times as far down the ranks as the one before. */
const CLASS_RATIO = Math.SQRT2;

/** Ranks from `first` up to but without `end`, from 0; the page of rank r is written (r + 1) ** -exponent. */
export interface FavourClass {
  readonly first: number;
  readonly end: number;
  /** Share of the writes that each of its pages gets. */
  readonly share: number;
}

export interface Favour {
  readonly region: Region;
  readonly exponent: number;
  readonly classes: readonly FavourClass[];
}

export interface Cells {
  readonly memoryPages: number;
  /** Stretches in order of their addresses: first page and number of pages. Stretch i has cells from `from[i]`. */
  readonly first: Float64Array;
  readonly pages: Float64Array;
  readonly from: Int32Array;
  /** Blocks of so many pages: of each, and of the end, the stretch with its first page. */
  readonly blockPages: number;
  readonly blocks: Int32Array;
  /** Of each cell: its stretch, how many pages it has (fractions of one are possible), its class of favour or -1. */
  readonly stretch: Int32Array;
  readonly count: Float64Array;
  readonly favourClass: Int32Array;
  /** Whose classes the cells are, if there is a Zipf workload. */
  readonly favour: Favour | undefined;
}

/** @param apart regions that no stretch is half in */
export function layOut(memoryPages: number, workload: Workload, apart: readonly Region[] = []): Cells {
  const found = gather(workload, memoryPages);
  for (const { first, pages } of apart) found.bounds.push(first, first + pages);
  const favour = found.zipf && favourOf(found.zipf.region, found.zipf.exponent);
  const bounds = [...new Set([0, memoryPages, ...found.bounds])].sort((a, b) => a - b);
  const firsts: number[] = [];
  const sizes: number[] = [];
  for (let index = 0; index + 1 < bounds.length; index += 1) {
    const [start, end] = [bounds[index]!, bounds[index + 1]!];
    const favoured = favour !== undefined && within(start, favour.region);
    const parts = stretchesIn(start, end - start, memoryPages, favoured, found.windows);
    for (let part = 0; part < parts; part += 1) {
      const from = start + Math.floor(((end - start) * part) / parts);
      const to = start + Math.floor(((end - start) * (part + 1)) / parts);
      firsts.push(from);
      sizes.push(to - from);
    }
  }
  return cellsOf(memoryPages, firsts, sizes, favour);
}

/** The stretch with this page. */
export function stretchAt(cells: Cells, page: number): number {
  const block = Math.floor(page / cells.blockPages);
  let low = cells.blocks[block]!;
  let high = cells.blocks[block + 1]!;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (cells.first[middle]! <= page) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Ranges of neighbours among these pages that were written: within a stretch those lie anywhere.
 *
 * @param written a share of each cell
 */
export function writtenRanges(cells: Cells, pages: Float64Array, written: Float64Array): number {
  let ranges = 0;
  for (let stretch = 0; stretch < cells.first.length; stretch += 1) {
    let all = 0;
    let found = 0;
    for (let cell = cells.from[stretch]!; cell < cells.from[stretch + 1]!; cell += 1) {
      const here = pages[cell]! * cells.count[cell]!;
      all += here;
      found += here * written[cell]!;
    }
    if (all > 0) ranges += found * (1 - found / all);
  }
  return ranges;
}

/** The pages of a set that is given as a share of each cell. */
export function measure(cells: Cells, shares: Float64Array): number {
  let total = 0;
  for (let cell = 0; cell < shares.length; cell += 1) total += shares[cell]! * cells.count[cell]!;
  return total;
}

export function within(page: number, region: Region): boolean {
  return page >= region.first && page < region.first + region.pages;
}

export function favourOf(region: Region, exponent: number): Favour {
  const edges = [0];
  for (let edge = 1; edge < region.pages; edge = Math.max(edge + 1, Math.floor(edge * CLASS_RATIO)))
    edges.push(edge);
  edges.push(region.pages);
  const weights = edges.slice(1).map((end, index) => ranksWeight(edges[index]!, end, exponent));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const classes = weights.map((weight, index) => {
    const [first, end] = [edges[index]!, edges[index + 1]!];
    return { first, end, share: weight / total / (end - first) };
  });
  return { region, exponent, classes };
}

/** The sum of (r + 1) ** -exponent for the ranks from `first` up to but without `end`. */
function ranksWeight(first: number, end: number, exponent: number): number {
  if (end - first <= 64) {
    let sum = 0;
    for (let rank = first; rank < end; rank += 1) sum += (rank + 1) ** -exponent;
    return sum;
  }
  // By the integral between the middles, which is off by less than a millionth from here on.
  const [low, high] = [first + 0.5, end + 0.5];
  if (Math.abs(exponent - 1) < 1e-9) return Math.log(high / low);
  return (high ** (1 - exponent) - low ** (1 - exponent)) / (1 - exponent);
}

function cellsOf(
  memoryPages: number,
  firsts: readonly number[],
  sizes: readonly number[],
  favour: Favour | undefined,
): Cells {
  const stretch: number[] = [];
  const count: number[] = [];
  const favourClass: number[] = [];
  const from: number[] = [];
  for (const [index, size] of sizes.entries()) {
    from.push(stretch.length);
    if (favour === undefined || !within(firsts[index]!, favour.region)) {
      stretch.push(index);
      count.push(size);
      favourClass.push(-1);
      continue;
    }
    // Favourites lie scattered: each stretch has its share of every class.
    for (const [number, { first, end }] of favour.classes.entries()) {
      stretch.push(index);
      count.push(((end - first) * size) / favour.region.pages);
      favourClass.push(number);
    }
  }
  from.push(stretch.length);
  return {
    memoryPages,
    first: Float64Array.from(firsts),
    pages: Float64Array.from(sizes),
    from: Int32Array.from(from),
    ...blocksOf(memoryPages, firsts),
    stretch: Int32Array.from(stretch),
    count: Float64Array.from(count),
    favourClass: Int32Array.from(favourClass),
    favour,
  };
}

/** A trace looks up each of its accesses. */
function blocksOf(memoryPages: number, firsts: readonly number[]): Pick<Cells, 'blockPages' | 'blocks'> {
  const blockPages = Math.max(1, memoryPages / BLOCKS);
  const blocks = new Int32Array(BLOCKS + 2).fill(firsts.length - 1);
  let stretch = 0;
  for (let block = 0; block <= BLOCKS; block += 1) {
    while (stretch + 1 < firsts.length && firsts[stretch + 1]! <= block * blockPages) stretch += 1;
    blocks[block] = stretch;
  }
  return { blockPages, blocks };
}

interface Window {
  readonly region: Region;
  readonly pages: number;
}

interface Gathered {
  readonly bounds: number[];
  readonly windows: Window[];
  zipf: { readonly region: Region; readonly exponent: number } | undefined;
}

/** Where workloads begin and end, and what else cuts memory. */
function gather(workload: Workload, memoryPages: number): Gathered {
  const found: Gathered = { bounds: [], windows: [], zipf: undefined };
  const visit = (each: Workload): void => {
    if (each.kind === 'mix') for (const part of each.parts) visit(part);
    if (each.kind === 'phases') for (const phase of each.phases) visit(phase.workload);
    if (each.kind === 'mix' || each.kind === 'phases' || each.kind === 'idle' || each.kind === 'trace')
      return;
    const region = regionOf(each, memoryPages);
    found.bounds.push(region.first, region.first + region.pages);
    if (each.kind === 'hot-and-cold') found.bounds.push(region.first + each.hotPages);
    if (each.kind === 'moving') found.windows.push({ region, pages: each.windowPages });
    if (each.kind === 'zipf') found.zipf ??= { region, exponent: each.exponent };
  };
  visit(workload);
  return found;
}

function stretchesIn(
  start: number,
  pages: number,
  memoryPages: number,
  favoured: boolean,
  windows: readonly Window[],
): number {
  let parts = Math.max(
    LEAST_STRETCHES,
    Math.round(((favoured ? FAVOURED_STRETCHES : STRETCHES) * pages) / memoryPages),
  );
  if (!favoured) {
    for (const window of windows) {
      if (within(start, window.region)) parts = Math.max(parts, (pages * WINDOW_STRETCHES) / window.pages);
    }
  }
  return Math.max(1, Math.min(pages, MOST_STRETCHES, Math.round(parts)));
}
