/** What makes steps cheap, held against the slow way. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AccessRates } from '../../src/simulator/dirty/access-rates.ts';
import { layOut, stretchAt } from '../../src/simulator/dirty/cells.ts';
import type { Region, Workload } from '../../src/simulator/dirty/regions.ts';
import { WorkingSet } from '../../src/simulator/dirty/working-set.ts';
import { moment } from '../../src/simulator/dirty/writer.ts';

const PAGES = 5000;

const region: fc.Arbitrary<Region> = fc
  .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: PAGES }))
  .map(([first, pages]) => ({ first, pages: Math.min(pages, PAGES - first) }));
const simple: fc.Arbitrary<Workload> = fc
  .tuple(region, fc.nat(3), fc.integer({ min: 1, max: 500 }))
  .map(([at, kind, amount]): Workload => {
    const [pagesPerSec, windowPages] = [amount * 10, Math.min(at.pages, amount)];
    switch (kind) {
      case 0:
        return { kind: 'uniform', pagesPerSec, region: at };
      case 1:
        return { kind: 'zipf', pagesPerSec, exponent: 1.1, region: at };
      case 2:
        return { kind: 'moving', pagesPerSec, windowPages, everySeconds: 0.1, stepPages: amount, region: at };
      default:
        return { kind: 'fork-bursts', pagesPerSec, burstPages: windowPages, everySeconds: 1, region: at };
    }
  });
const workload: fc.Arbitrary<Workload> = fc.oneof(
  simple,
  fc.array(simple, { minLength: 1, maxLength: 3 }).map((parts): Workload => ({ kind: 'mix', parts })),
  fc.array(simple, { minLength: 1, maxLength: 3 }).map(
    (inner): Workload => ({
      kind: 'phases',
      phases: inner.map((each) => ({ seconds: 0.3, workload: each })),
    }),
  ),
);

describe('accesses to cells', () => {
  it('that are used again and again come to what new ones do, and name each cell that has any once', () => {
    fc.assert(
      fc.property(
        workload,
        fc.array(fc.double({ min: 0, max: 30, noNaN: true }), { minLength: 2, maxLength: 6 }),
        (of, times) => {
          const set = new WorkingSet(of, PAGES);
          const rates = new AccessRates(set.cells);
          for (const t of times) {
            set.access(moment(t), rates);
            const anew = new AccessRates(set.cells);
            set.access(moment(t), anew);
            expect(rates.perSec).toEqual(anew.perSec);
            const accessed = [...rates.perSec.keys()].filter((cell) => rates.perSec[cell]! > 0);
            expect([...rates.cells].sort((a, b) => a - b)).toEqual(accessed);
            const stretches = new Set(accessed.map((cell) => set.cells.stretch[cell]!));
            expect([...rates.stretches].sort((a, b) => a - b)).toEqual([...stretches].sort((a, b) => a - b));
          }
        },
      ),
    );
  });

  it('add up to what the workload does in all', () => {
    fc.assert(
      fc.property(
        region,
        fc.integer({ min: 1, max: 1000 }),
        fc.double({ min: 0, max: 30, noNaN: true }),
        (at, pages, t) => {
          const windowPages = Math.min(at.pages, pages);
          const moves = {
            kind: 'moving',
            pagesPerSec: 700,
            windowPages,
            everySeconds: 0.1,
            stepPages: pages,
          } as const;
          const set = new WorkingSet(
            {
              kind: 'mix',
              parts: [
                { ...moves, region: at },
                { kind: 'uniform', pagesPerSec: 50 },
              ],
            },
            PAGES,
          );
          const rates = new AccessRates(set.cells);
          set.access(moment(t), rates);
          expect(rates.perSec.reduce((sum, each) => sum + each, 0)).toBeCloseTo(750, 6);
        },
      ),
    );
  });
});

describe('the stretch of a page', () => {
  it('is the last that does not begin behind it', () => {
    fc.assert(
      fc.property(
        workload,
        fc.integer({ min: 600, max: 300_000 }),
        fc.array(region, { maxLength: 3 }),
        fc.array(fc.nat(1e6)),
        (of, memoryPages, apart, pages) => {
          const memory = Math.max(PAGES, memoryPages);
          const cells = layOut(memory, of, apart);
          for (const any of [...pages, 0, memory - 1]) {
            const page = any % memory;
            const slow = cells.first.findLastIndex((first) => first <= page);
            expect(stretchAt(cells, page)).toBe(slow);
          }
        },
      ),
    );
  });
});
