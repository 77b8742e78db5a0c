import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { costNames } from '../../src/scenario/costs.ts';
import { compare } from '../../src/scenario/expectations.ts';
import { loadScenario } from '../../src/scenario/load.ts';
import type { SimulationResult } from '../../src/simulator/model.ts';
import { simulate } from '../../src/simulator/simulate.ts';

const FOLDER = fileURLToPath(new URL('../../published/', import.meta.url));
const scenarios = readdirSync(FOLDER).map((file) => [file, loadScenario(`${FOLDER}${file}`)] as const);

describe('published results', () => {
  it.each(scenarios)('in %s are met', (_, { file, simulation }) => {
    const result = simulate(simulation);
    expect(result.report.outcome).toBe('completed');
    expect(file.expect.length).toBeGreaterThan(0);
    for (const { figure, expected, simulated, off, within } of compare(file.expect, result)) {
      expect(within).toBeLessThanOrEqual(0.2);
      expect(Math.abs(off), `${figure}: ${expected} published, ${simulated} simulated`).toBeLessThanOrEqual(
        within,
      );
    }
  });

  it.each(scenarios)('in %s say what the source gives and what had to be assumed', (_, { file }) => {
    expect(file.source?.gives.length).toBeGreaterThan(0);
    expect(file.source?.assumed.length).toBeGreaterThan(0);
  });

  it('of one source share their constants: only the start of the guest, which the source measured, differs', () => {
    for (const [name, { file }] of scenarios) {
      const costs = typeof file.costs === 'string' ? { like: file.costs } : file.costs;
      expect(costNames).toContain(costs.like);
      const own = Object.keys(costs).filter((key) => key !== 'like' && key !== 'resumeMs');
      expect(own, name).toEqual([]);
      if (name.startsWith('clark-2005')) expect(costs.like).toBe('xen-2005');
    }
  });

  describe('of Hines and Gopalan', () => {
    const { file, simulation } = loadScenario(`${FOLDER}hines-2009-prepaging.yaml`);
    const holds = (result: SimulationResult) =>
      Object.fromEntries(compare(file.expect, result).map((row) => [row.figure, row.holds]));

    it('are a bound on faults and that no page crosses twice, both without any leeway', () => {
      const said = file.expect.map(({ figure, value, within, atMost }) => ({
        figure,
        value,
        within,
        atMost,
      }));
      expect(said).toEqual([
        { figure: 'faultShare', value: 0.21, within: 0, atMost: true },
        { figure: 'pagesTwice', value: 0, within: 0, atMost: false },
      ]);
      expect(holds(simulate(simulation))).toEqual({ faultShare: true, pagesTwice: true });
    });

    it('are missed without pre-paging', () => {
      const postcopy = { ...simulation.postcopy, prepaging: 'none' } as const;
      expect(holds(simulate({ ...simulation, postcopy }))['faultShare']).toBe(false);
    });

    it('are missed when one page crosses twice', () => {
      const result = simulate(simulation);
      const figures = result.postcopy!;
      const postcopy = { ...figures, sentPages: figures.sentPages + 1 };
      expect(holds({ ...result, postcopy })['pagesTwice']).toBe(false);
    });
  });

  it('are seven rows of three sources', () => {
    expect(scenarios.map(([file]) => file)).toEqual([
      'clark-2005-mmuncher.yaml',
      'clark-2005-quake3.yaml',
      'clark-2005-specweb99.yaml',
      'clark-2005-web-server.yaml',
      'hines-2009-prepaging.yaml',
      'qemu-2022-express.yaml',
      'qemu-2022-shared.yaml',
    ]);
  });
});
