import { describe, expect, it } from 'vitest';
import { forecasts, recommend } from '../../src/forecast/strategies.ts';
import type { Simulation } from '../../src/simulator/model.ts';
import { GBIT, GiB, simulationOf } from './simulations.ts';

const choose = (simulation: Simulation) => recommend(forecasts(simulation));

describe('the strategy to choose', () => {
  it('is pre-copy where rounds converge', () => {
    expect(choose(simulationOf())).toEqual({
      strategy: 'precopy',
      why: expect.stringMatching(/meets the goals/),
    });
  });

  it('is hybrid where they do not, with why not pre-copy', () => {
    const workload = { kind: 'uniform', pagesPerSec: 200_000, region: { first: 0, pages: 100_000 } } as const;
    const choice = choose(simulationOf({ guest: { workload }, link: { bandwidth: GBIT } }));
    expect(choice.strategy).toBe('hybrid');
    expect(choice.why).toMatch(/^precopy: .*throttled|^precopy: .*downtime/);
  });

  it('is pre-copy where post-copy is not possible', () => {
    expect(choose(simulationOf({ postcopyObstacle: 'no userfaultfd' })).strategy).toBe('precopy');
  });

  it('is what comes closest where none meets the goals', () => {
    const choice = choose(simulationOf({ request: { deadlineMs: 100 }, guest: { memoryBytes: 8 * GiB } }));
    expect(choice.why).toMatch(/^None meets all goals: it takes .* longer than the deadline/);
  });
});
