import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Workload } from '../../src/simulator/dirty/regions.ts';
import { WorkingSet } from '../../src/simulator/dirty/working-set.ts';
import { parseTrace } from '../../src/workload/trace.ts';
import { playedPages } from './brute-force.ts';

const MEMORY = 50_021;
/** Off by this share of what there is, or by so many pages: what chance and the cells' edges allow. */
const SHARE = 0.03;
const PAGES = 40;
/** Chance spreads counts by about their root. */
const SPREAD = 4;

/** Chance must not decide whether a run passes. */
const SEED = 20_050_502;

const region = fc
  .tuple(fc.integer({ min: 0, max: MEMORY - 2000 }), fc.integer({ min: 1000, max: MEMORY }))
  .map(([first, pages]) => ({ first, pages: Math.min(pages, MEMORY - first) }));
const rate = fc.integer({ min: 10, max: 12_000 });
const seconds = fc.integer({ min: 1, max: 40 }).map((tenths) => tenths / 10);

function kinds(at: fc.Arbitrary<{ first: number; pages: number }>) {
  const common = { pagesPerSec: rate, region: at };
  return {
    uniform: fc.record({ kind: fc.constant('uniform' as const), ...common }),
    zipf: fc.record({
      kind: fc.constant('zipf' as const),
      exponent: fc.constantFrom(0.5, 0.8, 1, 1.2, 2),
      ...common,
    }),
    sequential: fc.record({ kind: fc.constant('sequential' as const), ...common }),
    strided: fc.record({
      kind: fc.constant('strided' as const),
      stride: fc.integer({ min: 1, max: 700 }),
      ...common,
    }),
    'hot-and-cold': fc.record({
      kind: fc.constant('hot-and-cold' as const),
      hotPages: fc.integer({ min: 1, max: 1000 }),
      hotShare: fc.double({ min: 0, max: 1, noNaN: true }),
      ...common,
    }),
    'read-mostly': fc.record({ kind: fc.constant('read-mostly' as const), readsPerSec: rate, ...common }),
    moving: fc.record({
      kind: fc.constant('moving' as const),
      windowPages: fc.integer({ min: 100, max: 1000 }),
      everySeconds: seconds,
      stepPages: fc.integer({ min: 1, max: 1000 }),
      ...common,
    }),
  };
}

const interval = fc.tuple(
  fc.double({ min: 0, max: 60, noNaN: true }),
  fc.double({ min: 0.01, max: 5, noNaN: true }),
);

/** Holds the function against a few plays, which differ by chance. */
function check(workload: Workload, from: number, to: number, share = SHARE): void {
  const expected = new WorkingSet(workload, MEMORY).distinctPages(from, to);
  const plays = [1, 2, 3].map((seed) => playedPages(workload, MEMORY, from, to, seed).size);
  const mean = plays.reduce((sum, size) => sum + size, 0) / plays.length;
  const allowed = Math.max(PAGES, mean * share) + SPREAD * Math.sqrt(mean / plays.length);
  expect(Math.abs(expected - mean), `${expected} expected, ${mean} played`).toBeLessThanOrEqual(allowed);
}

describe('pages that a workload dirties in an interval, each counted once', () => {
  for (const [name, workloads] of Object.entries(kinds(region))) {
    it(`are those of ${name} writes, played one by one`, () => {
      fc.assert(
        fc.property(workloads as fc.Arbitrary<Workload>, interval, (workload, [from, length]) =>
          check(workload, from, from + length),
        ),
        { numRuns: 20, seed: SEED },
      );
    });
  }

  it('are those of bursts, which lie anywhere', () => {
    const workload = { kind: 'fork-bursts', pagesPerSec: 500, burstPages: 400, everySeconds: 0.25 } as const;
    for (const length of [0.2, 1, 4, 30]) check(workload, 7.1, 7.1 + length, 0.06);
  });

  it('are those of phases, each in its own time', () => {
    const { uniform, sequential } = kinds(region);
    const phases = fc.tuple(seconds, uniform, seconds, sequential).map(([a, first, b, second]) => ({
      kind: 'phases' as const,
      phases: [
        { seconds: a, workload: first as Workload },
        { seconds: b, workload: second as Workload },
      ],
    }));
    fc.assert(
      fc.property(phases, interval, (workload, [from, length]) => check(workload, from, from + length)),
      { numRuns: 20, seed: SEED },
    );
  });

  it('are those of several workloads at once, over the same memory too', () => {
    const { uniform, zipf, sequential, moving } = kinds(region);
    const mix = fc
      .tuple(uniform, zipf, sequential, moving)
      .map((parts) => ({ kind: 'mix' as const, parts: parts as readonly Workload[] }));
    fc.assert(
      fc.property(mix, interval, (workload, [from, length]) => check(workload, from, from + length, 0.04)),
      { numRuns: 20, seed: SEED },
    );
  });

  it('are those of a trace, and none after its end', () => {
    const lines = Array.from({ length: 5000 }, (_, index) => `${index * 2} ${(index * 37) % 900} w`);
    const workload: Workload = { kind: 'trace', trace: parseTrace(lines.join('\n'), MEMORY, 't') };
    const set = new WorkingSet(workload, MEMORY);
    expect(set.distinctPages(0, 0.2)).toBeCloseTo(100, 6);
    expect(set.distinctPages(0, 5)).toBeCloseTo(900, 6);
    // Pages that were written before as well.
    expect(set.distinctPages(4, 4.2)).toBeCloseTo(100, 6);
    expect(set.distinctPages(20, 30)).toBe(0);
  });

  it('never get fewer in a longer interval, and are never more than there is memory', () => {
    const { uniform, zipf, sequential, strided, moving } = kinds(region);
    fc.assert(
      fc.property(
        fc.oneof(uniform, zipf, sequential, strided, moving) as fc.Arbitrary<Workload>,
        interval,
        fc.double({ min: 0, max: 100, noNaN: true }),
        (workload, [from, length], more) => {
          const set = new WorkingSet(workload, MEMORY);
          const shorter = set.distinctPages(from, from + length);
          const longer = set.distinctPages(from, from + length + more);
          expect(longer).toBeGreaterThanOrEqual(shorter * (1 - 1e-6) - 1e-6);
          expect(longer).toBeLessThanOrEqual(MEMORY + 1e-6);
        },
      ),
    );
  });

  it('need as much memory for a terabyte as for a gigabyte', () => {
    const workload: Workload = { kind: 'zipf', pagesPerSec: 1000, exponent: 1 };
    const cells = (bytes: number) => new WorkingSet(workload, bytes / 4096).cells.count.length;
    expect(cells(2 ** 40)).toBeLessThan(2 * cells(2 ** 30));
    expect(cells(2 ** 40)).toBeLessThan(5000);
  });
});
