/** Workloads played access by access, to hold the functions of the simulator against. */

import type { Workload } from '../../src/simulator/dirty/regions.ts';
import { type Random, seededRandom } from '../../src/simulator/random.ts';

/** Writes from `fromSec` up to `toSec` of the workload's own time; memory has `memoryPages`. */
export function playedPages(
  workload: Workload,
  memoryPages: number,
  fromSec: number,
  toSec: number,
  seed: number,
): Set<number> {
  const random = seededRandom(seed);
  const dirty = new Set<number>();
  play(workload, memoryPages, fromSec, toSec, random, (page) => dirty.add(page));
  return dirty;
}

type Write = (page: number) => void;

function play(
  workload: Workload,
  memoryPages: number,
  from: number,
  to: number,
  random: Random,
  write: Write,
): void {
  if (to <= from || workload.kind === 'idle' || workload.kind === 'scan') return;
  switch (workload.kind) {
    case 'mix':
      for (const part of workload.parts) play(part, memoryPages, from, to, random, write);
      return;
    case 'phases': {
      const cycle = workload.phases.reduce((sum, { seconds }) => sum + seconds, 0);
      let begin = 0;
      for (const { seconds, workload: inner } of workload.phases) {
        const own = (t: number): number => {
          const cycles = Math.floor(t / cycle);
          return cycles * seconds + Math.min(seconds, Math.max(0, t - cycles * cycle - begin));
        };
        play(inner, memoryPages, own(from), own(to), random, write);
        begin += seconds;
      }
      return;
    }
    case 'trace':
      for (let at = 0; at < workload.trace.writes.times.length; at += 1) {
        const ms = workload.trace.writes.times[at]!;
        if (ms >= from * 1000 && ms < to * 1000) write(workload.trace.writes.pages[at]!);
      }
      return;
    default:
      break;
  }
  const { first, pages } = workload.region ?? { first: 0, pages: memoryPages };
  const { pagesPerSec } = workload;
  const place = placeOf(workload, pages, random);
  for (let n = Math.ceil(from * pagesPerSec); n < to * pagesPerSec; n += 1) write(first + place(n));
  if (workload.kind !== 'fork-bursts') return;
  const { everySeconds, burstPages } = workload;
  for (let k = Math.floor(from / everySeconds) + 1; k * everySeconds <= to; k += 1) {
    const start = Math.floor(random() * pages);
    for (let page = 0; page < burstPages; page += 1) write(first + ((start + page) % pages));
  }
}

type Simple = Exclude<Workload, { kind: 'idle' | 'scan' | 'mix' | 'phases' | 'trace' }>;

function placeOf(workload: Simple, pages: number, random: Random): (n: number) => number {
  switch (workload.kind) {
    case 'uniform':
    case 'read-mostly':
    case 'fork-bursts':
      return () => Math.floor(random() * pages);
    case 'sequential':
      return (n) => n % pages;
    case 'strided': {
      const order: number[] = [];
      for (let offset = 0; offset < workload.stride; offset += 1)
        for (let page = offset; page < pages; page += workload.stride) order.push(page);
      return (n) => order[n % pages]!;
    }
    case 'hot-and-cold':
      return () =>
        random() < workload.hotShare || workload.hotPages === pages
          ? Math.floor(random() * workload.hotPages)
          : workload.hotPages + Math.floor(random() * (pages - workload.hotPages));
    case 'moving':
      return (n) => {
        const step = Math.floor(n / workload.pagesPerSec / workload.everySeconds + 1e-9);
        return (step * workload.stepPages + Math.floor(random() * workload.windowPages)) % pages;
      };
    case 'zipf': {
      const upTo = new Float64Array(pages);
      let sum = 0;
      for (let rank = 0; rank < pages; rank += 1) {
        sum += (rank + 1) ** -workload.exponent;
        upTo[rank] = sum;
      }
      return () => {
        const at = random() * sum;
        let low = 0;
        let high = pages - 1;
        while (low < high) {
          const middle = (low + high) >> 1;
          if (upTo[middle]! < at) low = middle + 1;
          else high = middle;
        }
        // Scattered: the place of a rank is all the same to how many there are.
        return (low * 7919) % pages;
      };
    }
  }
}
