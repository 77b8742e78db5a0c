import { describe, expect, it } from 'vitest';
import { calibrate } from '../../src/forecast/calibrate.ts';
import { checkPrediction } from '../../src/forecast/check.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { GBIT, simulationOf } from './simulations.ts';

describe('a prediction', () => {
  const measured = { totalMs: 10_000, wireBytes: 1e9, downtimeMs: 40 };
  const holds = (predicted: Partial<typeof measured>) =>
    checkPrediction(measured, { ...measured, ...predicted }).map((row) => row.holds);

  it('of total time and bytes holds within 15 %', () => {
    expect(holds({ totalMs: 11_500, wireBytes: 0.85e9 })).toEqual([true, true, true]);
    expect(holds({ totalMs: 11_501 })).toEqual([false, true, true]);
    expect(holds({ wireBytes: 0.84e9 })).toEqual([true, false, true]);
  });

  it('of downtime holds within 30 % or 20 ms', () => {
    expect(holds({ downtimeMs: 60 })).toEqual([true, true, true]);
    expect(holds({ downtimeMs: 61 })).toEqual([true, true, false]);
    expect(
      checkPrediction({ ...measured, downtimeMs: 1000 }, { ...measured, downtimeMs: 1300 })[2]?.holds,
    ).toBe(true);
  });
});

describe('costs from moves by post-copy', () => {
  it('have what a batch takes, where hardly anything came by faults', () => {
    const of = (strategy: 'precopy' | 'postcopy', batchMs: number) => {
      const base = simulationOf({
        guest: { workload: { kind: 'idle' }, memoryBytes: 2 ** 30 },
        link: { bandwidth: 100 * GBIT },
        request: { strategy, compress: 'lz4' },
      });
      const costs = { ...base.costs, sendPageUs: 20, takePageUs: 20, packCores: 1000, batchMs };
      return simulate({ ...base, costs }).report;
    };
    for (const batchMs of [0.5, 1.5]) {
      const { costs } = calibrate({
        precopy: [of('precopy', batchMs)],
        postcopy: [of('postcopy', batchMs), of('postcopy', batchMs + 1)],
      });
      expect(costs.batchMs / batchMs).toBeGreaterThan(0.85);
      expect(costs.batchMs / batchMs).toBeLessThan(1.15);
    }
    expect(calibrate({ precopy: [of('precopy', 1)] }).costs.batchMs).toBe(simulationOf().costs.batchMs);
  });
});

describe('costs from several runs', () => {
  it('have a page’s time from the run of a middle speed, so that no lucky one decides', () => {
    const of = (pageUs: number) => {
      const base = simulationOf({ link: { bandwidth: 100 * GBIT }, request: { strategy: 'precopy' } });
      const costs = { ...base.costs, sendPageUs: pageUs, takePageUs: pageUs, packCores: 1000 };
      return simulate({ ...base, costs }).report;
    };
    const { costs } = calibrate({ precopy: [of(30), of(10), of(22)] });
    expect(costs.sendPageUs).toBeCloseTo(22, 0);
  });
});

describe('costs from one run', () => {
  it('predict runs on other links, where the run was one of the model’s own', () => {
    const slow = { sendPageUs: 20, takePageUs: 20, setupMs: 300, stopMs: 30, loadStateMs: 45 };
    const of = (bandwidth: number, costs = {}) => {
      const base = simulationOf({ link: { bandwidth }, request: { strategy: 'precopy' } });
      return simulate({ ...base, costs: { ...base.costs, packCores: 1000, ...costs } }).report;
    };
    const { costs, zero, left } = calibrate({ precopy: [of(100 * GBIT, slow)] });
    expect(costs.sendPageUs).toBeCloseTo(20, 0);
    expect(zero).toBeGreaterThan(0.2);
    expect(left).toBeGreaterThan(0.5);
    for (const gbit of [0.2, 1, 10]) {
      const rows = checkPrediction(of(gbit * GBIT, slow), of(gbit * GBIT, costs));
      expect(rows.filter((row) => !row.holds)).toEqual([]);
    }
  });
});
