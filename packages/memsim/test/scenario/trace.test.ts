import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadScenario, loadSweep } from '../../src/scenario/load.ts';
import { simulate } from '../../src/simulator/simulate.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-trace-'));
  mkdirSync(join(folder, 'guests'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const LINK = 'link: { bandwidth: 100mbit }\nran: 0s\nmigration: { strategy: precopy, compress: off }\n';
const GUEST =
  'name: recorded\nmemory: 64MiB\ncontent: { random: 1 }\nworkload: { kind: trace, file: t.txt }\n';

function trace(file: string, writtenPages: number): void {
  const lines = Array.from({ length: writtenPages }, (_, page) => `${page} ${page} w`);
  writeFileSync(join(folder, file), `${lines.join('\n')}\n`);
}

test('a recorded workload dirties what was recorded, from a trace beside the guest file', () => {
  writeFileSync(join(folder, 'guests', 'g.yaml'), GUEST);
  writeFileSync(join(folder, 's.yaml'), `guest: { file: guests/g.yaml }\n${LINK}`);
  trace('guests/t.txt', 1000);
  const { report } = simulate(loadScenario(join(folder, 's.yaml')).simulation);
  expect(report.outcome).toBe('completed');
  // Every page once, and those once more that were written after the first round had begun.
  expect(report.pages.raw).toBeGreaterThan(16_384 + 800);
  expect(report.pages.raw).toBeLessThan(16_384 + 1000);
});

test('a trace of a guest that is written in the scenario lies beside that', () => {
  const inline = GUEST.trimEnd().replaceAll('\n', '\n  ');
  writeFileSync(join(folder, 's.yaml'), `guest:\n  ${inline}\n${LINK}`);
  trace('t.txt', 10);
  expect(loadScenario(join(folder, 's.yaml')).simulation.guest.workload).toMatchObject({ kind: 'trace' });
  rmSync(join(folder, 't.txt'));
  expect(() => loadScenario(join(folder, 's.yaml'))).toThrow(
    /cannot read the trace .*t\.txt: there is no such file/,
  );
  trace('t.txt', 0);
  writeFileSync(join(folder, 't.txt'), '1 99999999 w\n');
  expect(() => loadScenario(join(folder, 's.yaml'))).toThrow(/beyond the guest's memory/);
});

test('a sweep reads a trace once for all of its runs', () => {
  const inline = GUEST.trimEnd().replaceAll('\n', '\n    ');
  writeFileSync(
    join(folder, 'sweep.yaml'),
    `guests:\n  - ${inline}\nlinks: { a: { bandwidth: 1gbit }, b: { bandwidth: 10gbit } }\n`,
  );
  trace('t.txt', 10);
  const { runs } = loadSweep(join(folder, 'sweep.yaml'));
  const traces = runs.map(({ simulation: { guest } }) => 'trace' in guest.workload && guest.workload.trace);
  expect(traces).toHaveLength(8);
  expect(new Set(traces).size).toBe(1);
});
