/**
 * What each kind of workload does to memory (see `writer.ts`).
 *
 * A page that is written twice within an interval counts once. Writes that come at random leave a page alone with
 * the probability exp(-writes expected); a walk leaves alone what its arc does not reach.
 */

import { type Cells, type Favour, favourOf } from './cells.ts';
import { moving } from './moving.ts';
import { phases } from './phases.ts';
import { recorded } from './recorded.ts';
import { type Region, regionOf, type Workload } from './regions.ts';
import { NEVER, NO_TURN, NOTHING, stretchesOf, type Writer } from './writer.ts';

/** A burst over neighbouring pages waits as often as one access for so many of them: they come together. */
const NEIGHBOURS = 128;

const STILL: Writer = {
  spare: NOTHING,
  access: NOTHING,
  walks: NOTHING,
  nextChange: NEVER,
  turn: NO_TURN,
};

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
    access: (span, rates) => {
      for (const writer of writers) writer.access(span, rates);
    },
    walks: (span, into) => {
      for (const writer of writers) writer.walks(span, into);
    },
    nextChange: (t) => Math.min(...writers.map((writer) => writer.nextChange(t))),
    turn: (t) => writers.map((writer) => writer.turn(t)).join(','),
  };
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
    turn: NO_TURN,
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
    turn: NO_TURN,
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
    walks: ({ from: t }, into) => {
      into.push({ region, at: (pagesPerSec * t) % region.pages, pagesPerSec, touched: 1 });
    },
    nextChange: NEVER,
    turn: NO_TURN,
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
    walks: ({ from: t }, into) => {
      into.push({ region, at: (speed * t) % region.pages, pagesPerSec: speed, touched: 1 / stride });
    },
    nextChange: NEVER,
    turn: NO_TURN,
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
    turn: NO_TURN,
  };
}
