/** A workload that was recorded, played once. */
import type { Recording, Trace } from '../../workload/trace.ts';
import { type Cells, stretchAt } from './cells.ts';
import { NO_TURN, NOTHING, type Writer } from './writer.ts';

/** What a trace is about to do is taken from at least so much of it, in seconds. */
const TRACE_AHEAD = 0.5;

export function recorded(cells: Cells, { reads, writes }: Trace): Writer {
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
    access: ({ from, to }, rates) => {
      const seconds = Math.max(TRACE_AHEAD, to - from);
      distinct.fill(0);
      for (const recording of [reads, writes])
        for (const page of between(recording, from, from + seconds)) distinct[stretchAt(cells, page)]! += 1;
      for (let stretch = 0; stretch < distinct.length; stretch += 1) {
        if (distinct[stretch] === 0) continue;
        const perPage = distinct[stretch]! / cells.pages[stretch]! / seconds;
        rates.addEvenly(cells.from[stretch]!, cells.from[stretch + 1]!, perPage);
      }
    },
    walks: NOTHING,
    nextChange: (t) => (t * 1000 <= lastMs ? t + TRACE_AHEAD : Number.POSITIVE_INFINITY),
    turn: NO_TURN,
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
