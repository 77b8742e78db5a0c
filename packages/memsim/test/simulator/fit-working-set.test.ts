import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fitWorkingSet } from '../../src/forecast/fit-working-set.ts';
import { WorkingSet } from '../../src/simulator/dirty/working-set.ts';

const MEMORY = 1_000_000;

describe('a working set from two measurements', () => {
  it('dirties as much as the one that was measured, in any time', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2000, max: MEMORY }),
        fc.double({ min: 0.05, max: 2, noNaN: true }),
        fc.double({ min: 0.2, max: 30, noNaN: true }),
        (pages, often, seconds) => {
          const real = new WorkingSet(
            { kind: 'uniform', pagesPerSec: pages * often, region: { first: 0, pages } },
            MEMORY,
          );
          const measured = (t: number) => ({ seconds: t, pages: real.distinctPages(0, t) });
          const fitted = new WorkingSet(fitWorkingSet(MEMORY, measured(1), measured(5)), MEMORY);
          const ratio = fitted.distinctPages(0, seconds) / real.distinctPages(0, seconds);
          expect(Math.abs(ratio - 1)).toBeLessThan(0.05);
        },
      ),
    );
  });

  it('is idle where nothing was dirtied', () => {
    expect(fitWorkingSet(MEMORY, { seconds: 1, pages: 0 }, { seconds: 5, pages: 0 })).toEqual({
      kind: 'idle',
    });
  });

  it('stays as big as it was where the longer time saw no more, and never outgrows memory', () => {
    const small = fitWorkingSet(MEMORY, { seconds: 1, pages: 5000 }, { seconds: 5, pages: 4000 });
    expect(new WorkingSet(small, MEMORY).distinctPages(0, 60)).toBeCloseTo(5000, -2);
    const steady = fitWorkingSet(MEMORY, { seconds: 1, pages: 10_000 }, { seconds: 5, pages: 60_000 });
    expect(new WorkingSet(steady, MEMORY).distinctPages(0, 10_000)).toBeLessThanOrEqual(MEMORY);
    expect(new WorkingSet(steady, MEMORY).distinctPages(0, 5)).toBeCloseTo(50_000, -4);
  });
});
