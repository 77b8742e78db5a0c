import { type Stream, streamsOf } from '@vmferry/memsim/workload/streams';
import { parseTrace } from '@vmferry/memsim/workload/trace';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { guest } from '../support/guests.ts';

const PAGES = 1024;

function streams(workload: unknown, seed = 1): readonly Stream[] {
  return streamsOf(guest({ workload, seed }));
}

function only(workload: unknown): Stream {
  const [stream, ...others] = streams(workload);
  expect(others).toEqual([]);
  return stream!;
}

function places(stream: Stream, count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, n) => stream.page(from + n));
}

/** How often each page was met. */
function tally(pages: readonly number[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const page of pages) counts.set(page, (counts.get(page) ?? 0) + 1);
  return counts;
}

const rate = fc.integer({ min: 1, max: 100_000 });
const region = fc.option(
  fc
    .tuple(fc.integer({ min: 0, max: PAGES - 1 }), fc.integer({ min: 1, max: PAGES }))
    .map(([first, pages]) => ({ first, pages: Math.min(pages, PAGES - first) })),
  { nil: undefined },
);

/** Any workload that is not made of others, with its region. */
const simple = fc.tuple(region, rate).chain(([where, pagesPerSec]) => {
  const common = { pagesPerSec, ...(where ? { region: where } : {}) };
  const size = fc.integer({ min: 1, max: where?.pages ?? PAGES });
  const seconds = fc.integer({ min: 1, max: 50 }).map((n) => n / 10);
  return fc
    .oneof(
      fc.constant({ kind: 'uniform' }),
      fc.record({ kind: fc.constant('zipf'), exponent: fc.constantFrom(0.5, 1, 1.3, 2) }),
      fc.constant({ kind: 'sequential' }),
      fc.record({ kind: fc.constant('strided'), stride: size }),
      fc.record({ kind: fc.constant('hot-and-cold'), hotPages: size, hotShare: fc.constantFrom(0, 0.5, 1) }),
      fc.record({ kind: fc.constant('moving'), windowPages: size, stepPages: size, everySeconds: seconds }),
      fc.record({ kind: fc.constant('fork-bursts'), burstPages: size, everySeconds: seconds }),
      fc.record({ kind: fc.constant('read-mostly'), readsPerSec: rate }),
    )
    .map((own) => ({ workload: { ...own, ...common }, where: where ?? { first: 0, pages: PAGES } }));
});

test('every workload stays in its region, and the n-th access depends on the seed, the stream and n alone', () => {
  fc.assert(
    fc.property(
      simple,
      fc.nat(),
      fc.array(fc.nat(2 ** 40), { minLength: 1 }),
      ({ workload, where }, seed, ns) => {
        const here = streams(workload, seed);
        const there = streams(workload, seed);
        for (const [which, stream] of here.entries()) {
          for (const n of ns) {
            const page = stream.page(n);
            expect(page).toBeGreaterThanOrEqual(where.first);
            expect(page).toBeLessThan(where.first + where.pages);
          }
          // Asked the other way round, of a stream that was made anew.
          expect(ns.map((n) => stream.page(n))).toEqual(
            [...ns]
              .reverse()
              .map((n) => there[which]!.page(n))
              .reverse(),
          );
        }
      },
    ),
  );
});

test('an access is due when its time has come, and not before; the clock only ever adds to what is due', () => {
  const phased = simple.map(({ workload }) => ({
    kind: 'phases',
    phases: [
      { seconds: 0.7, workload: { kind: 'idle' } },
      { seconds: 1.3, workload },
      { seconds: 0.5, workload: { kind: 'phases', phases: [{ seconds: 0.2, workload }] } },
    ],
  }));
  const any = fc.oneof(
    simple.map(({ workload }) => workload),
    phased,
  );
  fc.assert(
    fc.property(any, fc.nat(20_000), fc.nat(20_000), fc.nat(100_000), (workload, early, later, n) => {
      for (const { schedule } of streams(workload)) {
        const at = early;
        const after = early + later;
        expect(schedule.due(after)).toBeGreaterThanOrEqual(schedule.due(at));
        const time = schedule.time(n);
        expect(schedule.due(time + 1e-3)).toBeGreaterThan(n);
        // At the edge of a phase rounding may move an access to either side of the pause.
        const phases = 'phases' in workload;
        if (time > 1 && !phases) expect(schedule.due(time - 1e-3)).toBeLessThanOrEqual(n);
      }
    }),
  );
});

test('seeds make different sequences, and so do two streams of one guest', () => {
  const uniform = { kind: 'uniform', pagesPerSec: 1 };
  const [a, b] = streams({ kind: 'mix', parts: [uniform, uniform] });
  const [other] = streams(uniform, 2);
  expect(places(a!, 50)).not.toEqual(places(b!, 50));
  expect(places(a!, 50)).not.toEqual(places(other!, 50));
});

describe('shapes', () => {
  test('uniform: every page is as likely as any other', () => {
    const counts = tally(places(only({ kind: 'uniform', pagesPerSec: 1 }), 200 * PAGES));
    // 200 expected a page; the chance of 300 at any of them is below 1e-7.
    expect(counts.size).toBe(PAGES);
    expect(Math.max(...counts.values())).toBeLessThan(300);
    expect(Math.min(...counts.values())).toBeGreaterThan(110);
  });

  test.each([0.8, 1, 1.4])('zipf: the page of rank r has its share of r^-%d', (exponent) => {
    const draws = 200_000;
    const counts = [...tally(places(only({ kind: 'zipf', pagesPerSec: 1, exponent }), draws)).values()];
    counts.sort((a, b) => b - a);
    let sum = 0;
    for (let rank = 1; rank <= PAGES; rank += 1) sum += rank ** -exponent;
    for (const rank of [1, 2, 5, 20]) {
      const expected = (draws * rank ** -exponent) / sum;
      expect(counts[rank - 1]! / expected).toBeGreaterThan(0.85);
      expect(counts[rank - 1]! / expected).toBeLessThan(1.15);
    }
  });

  test('zipf: the favourites do not lie side by side', () => {
    const counts = [...tally(places(only({ kind: 'zipf', pagesPerSec: 1, exponent: 1.2 }), 50_000))];
    const favourites = counts
      .sort((a, b) => b[1] - a[1])
      .slice(0, 10)
      .map(([page]) => page);
    favourites.sort((a, b) => a - b);
    const neighbours = favourites.filter((page, index) => page === (favourites[index - 1] ?? -2) + 1);
    expect(neighbours.length).toBeLessThan(4);
  });

  test('sequential: one after the other, over and over', () => {
    const stream = only({ kind: 'sequential', pagesPerSec: 1, region: { first: 5, pages: 3 } });
    expect(places(stream, 7)).toEqual([5, 6, 7, 5, 6, 7, 5]);
  });

  test('strided: every stride-th page, then one page further, and each page once before any comes again', () => {
    const stream = only({ kind: 'strided', pagesPerSec: 1, stride: 4, region: { first: 0, pages: 10 } });
    expect(places(stream, 12)).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 3, 7, 0, 4]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: PAGES }), fc.nat(PAGES - 1), (pages, less) => {
        const stride = Math.max(1, pages - (less % pages));
        const any = only({ kind: 'strided', pagesPerSec: 1, stride, region: { first: 0, pages } });
        expect(new Set(places(any, pages)).size).toBe(pages);
      }),
    );
  });

  test('hot-and-cold: the hot pages take their share', () => {
    const stream = only({ kind: 'hot-and-cold', pagesPerSec: 1, hotPages: 100, hotShare: 0.9 });
    const hot = places(stream, 20_000).filter((page) => page < 100).length;
    expect(hot / 20_000).toBeCloseTo(0.9, 1);
    expect(new Set(places(stream, 20_000)).size).toBeGreaterThan(900);
  });

  test('moving: the working set is as big as its window and moves on in steps', () => {
    const stream = only({
      kind: 'moving',
      pagesPerSec: 1000,
      windowPages: 64,
      everySeconds: 1,
      stepPages: 32,
    });
    const second = (n: number): number[] => places(stream, 990, n * 1000);
    for (const n of [0, 1, 2, 40]) {
      const start = (n * 32) % PAGES;
      const offsets = second(n).map((page) => (page - start + PAGES) % PAGES);
      expect(Math.max(...offsets)).toBeLessThan(64);
      expect(new Set(offsets).size).toBeGreaterThan(60);
    }
  });

  test('fork-bursts: neighbours all at once, every so often, and a trickle beside', () => {
    const [trickle, bursts] = streams({
      kind: 'fork-bursts',
      pagesPerSec: 10,
      burstPages: 100,
      everySeconds: 2,
    });
    expect(trickle!.schedule.due(2000)).toBe(20);
    expect(bursts!.schedule.due(1999)).toBe(0);
    expect(bursts!.schedule.due(2000)).toBe(100);
    expect(bursts!.schedule.due(4100)).toBe(200);
    const burst = places(bursts!, 100);
    expect(burst.map((page) => (page - burst[0]! + PAGES) % PAGES)).toEqual([...burst.keys()]);
  });

  test('read-mostly: reads are reads', () => {
    const mixed = streams({ kind: 'read-mostly', readsPerSec: 900, pagesPerSec: 100 });
    expect(mixed.map(({ access, schedule }) => [access, schedule.due(1000)])).toEqual([
      ['write', 100],
      ['read', 900],
    ]);
  });

  test('phases: each stands still while it is not its turn', () => {
    const [quiet, burst] = streams({
      kind: 'phases',
      phases: [
        { seconds: 2, workload: { kind: 'uniform', pagesPerSec: 10 } },
        { seconds: 1, workload: { kind: 'uniform', pagesPerSec: 1000 } },
      ],
    });
    expect([1000, 2000, 3000, 4000].map((ms) => quiet!.schedule.due(ms))).toEqual([10, 20, 20, 30]);
    expect([1000, 2000, 2500, 3000, 5000].map((ms) => burst!.schedule.due(ms))).toEqual([
      0, 0, 500, 1000, 1000,
    ]);
  });
});

describe('a recorded trace', () => {
  test('is played once, each access at its time', () => {
    const trace = parseTrace('# recorded\n0 1 w\n10 2 r\n10.5, 3 w\n\n20 3 w\n', PAGES, 't');
    const [writes, reads] = streamsOf({
      ...guest({ workload: { kind: 'trace', file: 't' } }),
      traces: { t: trace },
    });
    expect(places(writes!, 3)).toEqual([1, 3, 3]);
    expect([0, 10, 10.5, 20, 9e9].map((ms) => writes!.schedule.due(ms))).toEqual([1, 1, 2, 3, 3]);
    expect(writes!.schedule.time(3)).toBe(Number.POSITIVE_INFINITY);
    expect(reads!.access).toBe('read');
    expect(places(reads!, 1)).toEqual([2]);
  });

  test.each([
    ['5 1 w\n4 1 w', /line 2: its time, 4 ms, is before that of the line above/],
    ['5 1024 w', /line 1: page 1024 is beyond the guest's memory, which has 1024 pages/],
    ['5 1 x', /t: line 1: "5 1 x" is no access/],
  ])('%j is refused with its line', (text, why) => {
    expect(() => parseTrace(text, PAGES, 't')).toThrow(why);
  });
});
