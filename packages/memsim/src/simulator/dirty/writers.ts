/**
 * What each kind of workload does to memory, as functions of its own time: which share of each cell is still
 * untouched after an interval, and where accesses go at a moment.
 *
 * A page that is written twice within an interval counts once. Writes that come at random leave a page alone with
 * the probability exp(-writes expected); a walk leaves alone what its arc does not reach.
 */

import type { Recording, Trace } from '../../workload/trace.ts';
import type { AccessRates } from './access-rates.ts';
import { type Cells, type Favour, favourOf, stretchAt } from './cells.ts';
import { type Region, regionOf, type Workload } from './regions.ts';

/** A walk through memory at a moment. */
export interface Walk {
  readonly region: Region;
  /** Where it is, as a page of the region. */
  readonly at: number;
  /** Pages that it passes a second, and the share of them that it touches. */
  readonly pagesPerSec: number;
  readonly touched: number;
}

/** All times are the workload's own, in seconds since it began. */
export interface Writer {
  /** Multiplies each cell's share by the share that is not written from `a` up to `b`. */
  spare(a: number, b: number, untouched: Float64Array): void;
  /** Adds the accesses a second, reads and writes, that go to each cell at random at `t`. */
  access(t: number, rates: AccessRates): void;
  /** Adds the walks that go on at `t`. */
  walks(t: number, into: Walk[]): void;
  /** When `access` and which walks there are change next, after `t`; infinite if they do not. */
  nextChange(t: number): number;
}

/** Windows of a moving working set that are looked at one by one. */
const MOST_WINDOWS = 512;
/** A burst over neighbouring pages waits as often as one access for so many of them: they come together. */
const NEIGHBOURS = 128;
/** What a trace is about to do is taken from this much of it, in seconds. */
const TRACE_AHEAD = 0.5;

const NEVER = () => Number.POSITIVE_INFINITY;
const NOTHING = () => {};
const STILL: Writer = { spare: NOTHING, access: NOTHING, walks: NOTHING, nextChange: NEVER };

export function writerOf(workload: Workload, cells: Cells): Writer {
  switch (workload.kind) {
    case 'idle':
      return STILL;
    case 'uniform':
      return uniform(
        cells,
        regionOf(workload, cells.memoryPages),
        workload.pagesPerSec,
        workload.pagesPerSec,
      );
    case 'read-mostly': {
      const { pagesPerSec, readsPerSec } = workload;
      return uniform(cells, regionOf(workload, cells.memoryPages), pagesPerSec, pagesPerSec + readsPerSec);
    }
    case 'zipf':
      return zipf(cells, regionOf(workload, cells.memoryPages), workload.pagesPerSec, workload.exponent);
    case 'sequential':
      return sequential(cells, regionOf(workload, cells.memoryPages), workload.pagesPerSec);
    case 'strided':
      return strided(cells, regionOf(workload, cells.memoryPages), workload.pagesPerSec, workload.stride);
    case 'hot-and-cold': {
      const region = regionOf(workload, cells.memoryPages);
      const { pagesPerSec, hotPages, hotShare } = workload;
      const hot = { first: region.first, pages: hotPages };
      const cold = { first: region.first + hotPages, pages: region.pages - hotPages };
      const hotRate = cold.pages === 0 ? pagesPerSec : pagesPerSec * hotShare;
      const coldRate = pagesPerSec - hotRate;
      return both([uniform(cells, hot, hotRate, hotRate), uniform(cells, cold, coldRate, coldRate)]);
    }
    case 'moving': {
      const { pagesPerSec, windowPages, everySeconds, stepPages } = workload;
      const region = regionOf(workload, cells.memoryPages);
      return moving(cells, { region, pagesPerSec, windowPages, everySeconds, stepPages });
    }
    case 'fork-bursts': {
      const region = regionOf(workload, cells.memoryPages);
      const { pagesPerSec, burstPages, everySeconds } = workload;
      return both([
        uniform(cells, region, pagesPerSec, pagesPerSec),
        bursts(cells, region, burstPages, everySeconds),
      ]);
    }
    case 'scan': {
      const { walks } = sequential(cells, regionOf(workload, cells.memoryPages), workload.readsPerSec);
      return { ...STILL, walks };
    }
    case 'trace':
      return recorded(cells, workload.trace);
    case 'phases':
      return phases(
        workload.phases.map(({ seconds, workload: inner }) => ({ seconds, writer: writerOf(inner, cells) })),
      );
    case 'mix':
      return both(workload.parts.map((part) => writerOf(part, cells)));
  }
}

function both(writers: readonly Writer[]): Writer {
  return {
    spare: (a, b, untouched) => {
      for (const writer of writers) writer.spare(a, b, untouched);
    },
    access: (t, rates) => {
      for (const writer of writers) writer.access(t, rates);
    },
    walks: (t, into) => {
      for (const writer of writers) writer.walks(t, into);
    },
    nextChange: (t) => Math.min(...writers.map((writer) => writer.nextChange(t))),
  };
}

/** Indices of the stretches in a region, first and end. */
function stretchesOf(cells: Cells, region: Region): readonly [number, number] {
  if (region.pages <= 0) return [0, 0];
  return [stretchAt(cells, region.first), stretchAt(cells, region.first + region.pages - 1) + 1];
}

function uniform(cells: Cells, region: Region, writesPerSec: number, accessesPerSec: number): Writer {
  const [start, end] = stretchesOf(cells, region);
  const [from, to] = [cells.from[start]!, cells.from[end]!];
  return {
    spare: (a, b, untouched) => {
      const spared = Math.exp((-writesPerSec * (b - a)) / region.pages);
      for (let cell = from; cell < to; cell += 1) untouched[cell]! *= spared;
    },
    access: (_, rates) => {
      const perPage = accessesPerSec / region.pages;
      rates.addEvenly(from, to, perPage);
    },
    walks: NOTHING,
    nextChange: NEVER,
  };
}

function zipf(cells: Cells, region: Region, pagesPerSec: number, exponent: number): Writer {
  const [start, end] = stretchesOf(cells, region);
  const [from, to] = [cells.from[start]!, cells.from[end]!];
  const own = isFavour(cells.favour, region, exponent);
  const { classes } = own ? cells.favour! : favourOf(region, exponent);
  const spared = new Float64Array(classes.length);
  const perSec = new Float64Array(to - from).map((_, index) => {
    const share = own ? classes[cells.favourClass[from + index]!]!.share : 1 / region.pages;
    return pagesPerSec * share * cells.count[from + index]!;
  });
  return {
    spare: (a, b, untouched) => {
      let average = 0;
      for (const [index, each] of classes.entries()) {
        spared[index] = Math.exp(-pagesPerSec * each.share * (b - a));
        average += (spared[index]! * (each.end - each.first)) / region.pages;
      }
      // Where the cells have the classes of another one, the favourites of this one are anywhere.
      for (let cell = from; cell < to; cell += 1)
        untouched[cell]! *= own ? spared[cells.favourClass[cell]!]! : average;
    },
    access: (_, rates) => {
      for (let cell = from; cell < to; cell += 1) rates.add(cell, perSec[cell - from]!);
    },
    walks: NOTHING,
    nextChange: NEVER,
  };
}

function isFavour(favour: Favour | undefined, region: Region, exponent: number): boolean {
  return (
    favour !== undefined &&
    favour.exponent === exponent &&
    favour.region.first === region.first &&
    favour.region.pages === region.pages
  );
}

/** Takes `share` of the pages from `low` up to `high` (pages of the region, whole laps taken off) out. */
function spareArc(
  cells: Cells,
  region: Region,
  low: number,
  high: number,
  share: number,
  untouched: Float64Array,
): void {
  if (high <= low) return;
  const [start, end] = stretchesOf(cells, {
    first: region.first + Math.floor(low),
    pages: Math.max(1, Math.min(region.pages, Math.ceil(high)) - Math.floor(low)),
  });
  for (let stretch = start; stretch < end; stretch += 1) {
    const offset = cells.first[stretch]! - region.first;
    const covered = Math.min(high, offset + cells.pages[stretch]!) - Math.max(low, offset);
    if (covered <= 0) continue;
    const spared = 1 - Math.min(1, (covered * share) / cells.pages[stretch]!);
    for (let cell = cells.from[stretch]!; cell < cells.from[stretch + 1]!; cell += 1)
      untouched[cell]! *= spared;
  }
}

function sequential(cells: Cells, region: Region, pagesPerSec: number): Writer {
  return {
    spare: (a, b, untouched) => {
      const passed = pagesPerSec * (b - a);
      if (passed >= region.pages) {
        spareArc(cells, region, 0, region.pages, 1, untouched);
        return;
      }
      const low = (pagesPerSec * a) % region.pages;
      const high = low + passed;
      spareArc(cells, region, low, Math.min(high, region.pages), 1, untouched);
      spareArc(cells, region, 0, high - region.pages, 1, untouched);
    },
    access: NOTHING,
    walks: (t, into) => {
      into.push({ region, at: (pagesPerSec * t) % region.pages, pagesPerSec, touched: 1 });
    },
    nextChange: NEVER,
  };
}

/** Passes over the region touch every stride-th page, each pass those beside the ones of the pass before. */
function strided(cells: Cells, region: Region, pagesPerSec: number, stride: number): Writer {
  const speed = pagesPerSec * stride;
  return {
    spare: (a, b, untouched) => {
      if (pagesPerSec * (b - a) >= region.pages) {
        spareArc(cells, region, 0, region.pages, 1, untouched);
        return;
      }
      const [low, high] = [speed * a, speed * b];
      const [firstPass, lastPass] = [Math.floor(low / region.pages), Math.floor(high / region.pages)];
      const from = low - firstPass * region.pages;
      const to = high - lastPass * region.pages;
      // Different passes touch different pages, so their shares add up; each is at most a stride-th.
      const whole = Math.max(0, lastPass - firstPass - 1) / stride;
      if (firstPass === lastPass) {
        spareArc(cells, region, from, to, 1 / stride, untouched);
        return;
      }
      const shares: [number, number, number][] =
        from < to
          ? [
              [0, from, whole + 1 / stride],
              [from, to, whole + 2 / stride],
              [to, region.pages, whole + 1 / stride],
            ]
          : [
              [0, to, whole + 1 / stride],
              [to, from, whole],
              [from, region.pages, whole + 1 / stride],
            ];
      for (const [begin, end, share] of shares)
        spareArc(cells, region, begin, end, Math.min(1, share), untouched);
    },
    access: NOTHING,
    walks: (t, into) => {
      into.push({ region, at: (speed * t) % region.pages, pagesPerSec: speed, touched: 1 / stride });
    },
    nextChange: NEVER,
  };
}

interface Moving {
  readonly region: Region;
  readonly pagesPerSec: number;
  readonly windowPages: number;
  readonly everySeconds: number;
  readonly stepPages: number;
}

function moving(cells: Cells, options: Moving): Writer {
  const { region, pagesPerSec, windowPages, everySeconds, stepPages } = options;
  const [start, end] = stretchesOf(cells, region);
  const [from, to] = [cells.from[start]!, cells.from[end]!];
  const spared = new Float64Array(end - start);
  /** Calls back with each stretch of the window and how many of its pages are in it. */
  const window = (t: number, each: (stretch: number, pages: number) => void): void => {
    const at = (Math.floor(t / everySeconds + 1e-9) * stepPages) % region.pages;
    const size = Math.min(windowPages, region.pages);
    for (const [low, high] of [
      [at, Math.min(at + size, region.pages)],
      [0, at + size - region.pages],
    ] as const) {
      if (high <= low) continue;
      let stretch = stretchAt(cells, region.first + low);
      for (; stretch < end && cells.first[stretch]! - region.first < high; stretch += 1) {
        const offset = cells.first[stretch]! - region.first;
        each(stretch, Math.min(high, offset + cells.pages[stretch]!) - Math.max(low, offset));
      }
    }
  };
  return {
    spare: (a, b, untouched) => {
      if (b <= a) return;
      const moves = Math.floor(b / everySeconds) - Math.floor(a / everySeconds);
      const perPage = pagesPerSec / Math.min(windowPages, region.pages);
      spared.fill(1);
      const pass = (at: number, seconds: number): void => {
        const written = 1 - Math.exp(-perPage * seconds);
        window(at, (stretch, pages) => {
          spared[stretch - start]! *= 1 - (written * pages) / cells.pages[stretch]!;
        });
      };
      if (moves * stepPages >= 3 * region.pages) {
        // Several times round: it has been everywhere about as long.
        spared.fill(Math.exp((-pagesPerSec * (b - a)) / region.pages));
      } else if (moves <= MOST_WINDOWS) {
        for (let at = a; at < b; ) {
          const next = Math.min(b, (Math.floor(at / everySeconds + 1e-9) + 1) * everySeconds);
          pass(at, next - at);
          at = next;
        }
      } else {
        const slice = (b - a) / MOST_WINDOWS;
        for (let index = 0; index < MOST_WINDOWS; index += 1) pass(a + (index + 0.5) * slice, slice);
      }
      for (let cell = from; cell < to; cell += 1) untouched[cell]! *= spared[cells.stretch[cell]! - start]!;
    },
    access: (t, rates) => {
      const perPage = pagesPerSec / Math.min(windowPages, region.pages);
      window(t, (stretch, pages) => {
        const share = pages / cells.pages[stretch]!;
        rates.addEvenly(cells.from[stretch]!, cells.from[stretch + 1]!, perPage * share);
      });
    },
    walks: NOTHING,
    nextChange: (t) => (Math.floor(t / everySeconds + 1e-9) + 1) * everySeconds,
  };
}

/** Neighbouring pages all at once, at a place that nobody knows beforehand: each page is as likely. */
function bursts(cells: Cells, region: Region, burstPages: number, everySeconds: number): Writer {
  const [start, end] = stretchesOf(cells, region);
  const [from, to] = [cells.from[start]!, cells.from[end]!];
  const share = Math.min(1, burstPages / region.pages);
  return {
    spare: (a, b, untouched) => {
      // The first comes when that time has passed once.
      const count = Math.floor(b / everySeconds + 1e-9) - Math.floor(a / everySeconds + 1e-9);
      const spared = (1 - share) ** count;
      for (let cell = from; cell < to; cell += 1) untouched[cell]! *= spared;
    },
    access: (_, rates) => {
      const perPage = burstPages / NEIGHBOURS / everySeconds / region.pages;
      rates.addEvenly(from, to, perPage);
    },
    walks: NOTHING,
    nextChange: NEVER,
  };
}

function recorded(cells: Cells, { reads, writes }: Trace): Writer {
  /** Accesses, or different pages, of each stretch. */
  const distinct = new Float64Array(cells.first.length);
  const lastMs = Math.max(reads.times.at(-1) ?? 0, writes.times.at(-1) ?? 0);
  return {
    spare: (a, b, untouched) => {
      const [from, to] = [firstAt(writes.times, a * 1000), firstAt(writes.times, b * 1000)];
      distinct.fill(0);
      for (let index = from; index < to; index += 1) {
        // Counted already.
        if (writes.before[index]! >= from) continue;
        distinct[stretchAt(cells, writes.pages[index]!)]! += 1;
      }
      for (let stretch = 0; stretch < distinct.length; stretch += 1) {
        if (distinct[stretch] === 0) continue;
        const spared = 1 - distinct[stretch]! / cells.pages[stretch]!;
        for (let cell = cells.from[stretch]!; cell < cells.from[stretch + 1]!; cell += 1)
          untouched[cell]! *= spared;
      }
    },
    access: (t, rates) => {
      distinct.fill(0);
      for (const recording of [reads, writes])
        for (const page of between(recording, t, t + TRACE_AHEAD)) distinct[stretchAt(cells, page)]! += 1;
      for (let stretch = 0; stretch < distinct.length; stretch += 1) {
        if (distinct[stretch] === 0) continue;
        const perPage = distinct[stretch]! / cells.pages[stretch]! / TRACE_AHEAD;
        rates.addEvenly(cells.from[stretch]!, cells.from[stretch + 1]!, perPage);
      }
    },
    walks: NOTHING,
    nextChange: (t) => (t * 1000 <= lastMs ? t + TRACE_AHEAD : Number.POSITIVE_INFINITY),
  };
}

/** The pages of the accesses from `a` up to `b`, in seconds. */
function between({ times, pages }: Recording, a: number, b: number): Uint32Array {
  return pages.subarray(firstAt(times, a * 1000), firstAt(times, b * 1000));
}

/** The first index whose time is not before `ms`. */
function firstAt(times: Float64Array, ms: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface TimedWriter {
  readonly seconds: number;
  readonly writer: Writer;
}

/** One after the other, over and over; each one's time stands still while it is not its turn. */
function phases(parts: readonly TimedWriter[]): Writer {
  const cycle = parts.reduce((sum, { seconds }) => sum + seconds, 0);
  const begins = parts.map((_, index) =>
    parts.slice(0, index).reduce((sum, { seconds }) => sum + seconds, 0),
  );
  const own = (index: number, t: number): number => {
    const cycles = Math.floor(t / cycle);
    const { seconds } = parts[index]!;
    return cycles * seconds + Math.min(seconds, Math.max(0, t - cycles * cycle - begins[index]!));
  };
  const turnAt = (t: number): number => {
    const within = t % cycle;
    let index = parts.length - 1;
    while (index > 0 && begins[index]! > within) index -= 1;
    return index;
  };
  return {
    spare: (a, b, untouched) => {
      for (const [index, { writer }] of parts.entries()) {
        const [from, to] = [own(index, a), own(index, b)];
        if (to > from) writer.spare(from, to, untouched);
      }
    },
    access: (t, rates) => {
      const index = turnAt(t);
      parts[index]!.writer.access(own(index, t), rates);
    },
    walks: (t, into) => {
      const index = turnAt(t);
      parts[index]!.writer.walks(own(index, t), into);
    },
    nextChange: (t) => {
      const index = turnAt(t);
      const { seconds, writer } = parts[index]!;
      const at = own(index, t);
      const turnEnds = Math.floor(t / cycle) * cycle + begins[index]! + seconds;
      return Math.min(Math.max(turnEnds, t + 1e-6), t + writer.nextChange(at) - at);
    },
  };
}
