/**
 * A workload as streams of accesses. Which page the n-th access of a stream touches depends on the seed, the
 * stream and n alone, never on when it happens or on what other streams do: whoever knows how many accesses
 * there were knows all of them.
 */
import { PAGE_BYTES } from '@vmferry/engine/units';
import type { GuestFile, SimpleWorkload, Workload } from '../guest-file/schema.ts';
import { draw, hash } from '../random.ts';
import { bursts, gated, recorded, type Schedule, steady } from './schedule.ts';
import type { Recording, Trace } from './trace.ts';
import { zipfSampler } from './zipf.ts';

/** What a guest's workload is made from. Can be sent to a thread. */
export interface GuestDefinition {
  readonly file: GuestFile;
  /** By the name that the workload gives them. */
  readonly traces: Readonly<Record<string, Trace>>;
}

export interface Stream {
  readonly access: 'read' | 'write';
  readonly schedule: Schedule;
  /** The page of access n, from 0. */
  page(n: number): number;
}

type Place = (n: number) => number;

interface Area {
  readonly first: number;
  readonly pages: number;
}

/** The streams of the guest's workload, always in the same order. */
export function streamsOf({ file, traces }: GuestDefinition): readonly Stream[] {
  let made = 0;
  const context: Context = {
    guestPages: file.memory / PAGE_BYTES,
    traces,
    nextKey: () => {
      made += 1;
      return hash(file.seed, 0x776f_726b, made);
    },
  };
  return compile(file.workload, context);
}

interface Context {
  readonly guestPages: number;
  readonly traces: Readonly<Record<string, Trace>>;
  /** The key of one more sequence of random numbers. */
  nextKey(): number;
}

function compile(workload: Workload, context: Context): Stream[] {
  switch (workload.kind) {
    case 'mix':
      return workload.parts.flatMap((part) => compile(part, context));
    case 'phases': {
      const periodMs = workload.phases.reduce((sum, { seconds }) => sum + seconds * 1000, 0);
      let fromMs = 0;
      return workload.phases.flatMap(({ seconds, workload: inner }) => {
        const from = fromMs;
        fromMs += seconds * 1000;
        const to = fromMs;
        return compile(inner, context).map((stream) => ({
          ...stream,
          schedule: gated(stream.schedule, periodMs, from, to),
        }));
      });
    }
    default:
      return simpleStreams(workload, context);
  }
}

function simpleStreams(workload: SimpleWorkload, context: Context): Stream[] {
  if (workload.kind === 'idle') return [];
  if (workload.kind === 'trace') {
    const trace = context.traces[workload.file];
    if (!trace) throw new Error(`the trace ${workload.file} was not loaded`);
    return [replay('write', trace.writes), replay('read', trace.reads)];
  }
  const area: Area = workload.region ?? { first: 0, pages: context.guestPages };
  const schedule = steady(workload.pagesPerSec);
  const write = (page: Place, when = schedule): Stream => ({ access: 'write', schedule: when, page });
  switch (workload.kind) {
    case 'uniform':
      return [write(uniform(area, context.nextKey()))];
    case 'zipf':
      return [write(zipf(area, workload.exponent, context.nextKey()))];
    case 'sequential':
      return [write((n) => area.first + (n % area.pages))];
    case 'strided':
      return [write(strided(area, workload.stride))];
    case 'hot-and-cold':
      return [write(hotAndCold(area, workload.hotPages, workload.hotShare, context.nextKey()))];
    case 'moving':
      return [write(moving(area, workload, schedule, context.nextKey()))];
    case 'fork-bursts':
      return [
        write(uniform(area, context.nextKey())),
        write(
          burst(area, workload.burstPages, context.nextKey()),
          bursts(workload.burstPages, workload.everySeconds * 1000),
        ),
      ];
    case 'read-mostly':
      return [
        write(uniform(area, context.nextKey())),
        {
          access: 'read',
          schedule: steady(workload.readsPerSec),
          page: uniform(area, context.nextKey()),
        },
      ];
  }
}

function replay(access: Stream['access'], { times, pages }: Recording): Stream {
  return { access, schedule: recorded(times), page: (n) => pages[n]! };
}

function uniform({ first, pages }: Area, key: number): Place {
  return (n) => first + Math.floor(draw(key, n) * pages);
}

function zipf({ first, pages }: Area, exponent: number, key: number): Place {
  const sample = zipfSampler(pages, exponent);
  const factor = scattering(pages);
  return (n) => first + (((sample((attempt) => draw(key, n, attempt)) - 1) * factor) % pages);
}

/** Multiplied by it modulo `pages` neighbours come to lie far apart, and no two in the same place. */
function scattering(pages: number): number {
  // Products must stay exact.
  const most = Math.floor(Number.MAX_SAFE_INTEGER / pages);
  let factor = Math.max(1, Math.min(most, Math.floor(pages * 0.618)));
  while (commonDivisor(factor, pages) !== 1) factor -= 1;
  return factor;
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

/** Passes from 0, from 1 and so on; those from the first `longer` offsets have one page more. */
function strided({ first, pages }: Area, stride: number): Place {
  const short = Math.floor(pages / stride);
  const longer = pages % stride;
  return (n) => {
    const at = n % pages;
    const inLonger = longer * (short + 1);
    if (at < inLonger) {
      const offset = Math.floor(at / (short + 1));
      return first + offset + (at - offset * (short + 1)) * stride;
    }
    const offset = Math.floor((at - inLonger) / short);
    return first + longer + offset + (at - inLonger - offset * short) * stride;
  };
}

function hotAndCold({ first, pages }: Area, hotPages: number, hotShare: number, key: number): Place {
  const coldPages = pages - hotPages;
  return (n) => {
    const where = draw(key, n, 1);
    if (coldPages === 0 || draw(key, n, 0) < hotShare) return first + Math.floor(where * hotPages);
    return first + hotPages + Math.floor(where * coldPages);
  };
}

interface Window {
  readonly windowPages: number;
  readonly everySeconds: number;
  readonly stepPages: number;
}

function moving({ first, pages }: Area, window: Window, schedule: Schedule, key: number): Place {
  const { windowPages, everySeconds, stepPages } = window;
  return (n) => {
    const step = Math.floor(schedule.time(n) / (everySeconds * 1000));
    const start = (step * stepPages) % pages;
    return first + ((start + Math.floor(draw(key, n) * windowPages)) % pages);
  };
}

function burst({ first, pages }: Area, burstPages: number, key: number): Place {
  return (n) => {
    const which = Math.floor(n / burstPages);
    const start = Math.floor(draw(key, which) * pages);
    return first + ((start + (n % burstPages)) % pages);
  };
}
