import { describe, expect, it } from 'vitest';
import { parseSweep } from '../../src/scenario/parse.ts';
import { csvOf } from '../../src/sweep/csv.ts';
import { MOST_CASES, runSweep } from '../../src/sweep/run-sweep.ts';
import { setup } from '../support/build-threads.ts';

const nothing = () => {
  throw new Error('nothing beside it');
};
const parse = (text: string) => parseSweep(text, 'sweep.yaml', { guestFile: nothing, trace: nothing });
const links = (count: number) =>
  Array.from({ length: count }, (_, index) => `  l${index}: { bandwidth: ${100 + index * 50}mbit }`).join(
    '\n',
  );

describe('a sweep', () => {
  it('crosses strategies, guests, links and sizes', () => {
    const { runs } = parse(`guests: [idle, web]\nsizes: [1GiB, 2GiB, 4GiB]\nlinks:\n${links(5)}\n`);
    expect(runs).toHaveLength(4 * 2 * 3 * 5);
    expect(new Set(runs.map(({ axes }) => JSON.stringify(axes))).size).toBe(runs.length);
    for (const { axes, simulation } of runs) {
      expect(simulation.guest.memoryBytes).toBe(axes.memoryBytes);
      expect(simulation.request.strategy).toBe(axes.strategy);
    }
  });

  it('comes to the same on threads as without, in the same order', async () => {
    await setup();
    const { runs } = parse(`guests: [idle, web]\nlinks:\n${links(12)}\n`);
    const seen: number[] = [];
    const onThreads = await runSweep(runs, { threads: 2, onProgress: (done) => seen.push(done) });
    expect(onThreads).toEqual(await runSweep(runs, { threads: 1 }));
    expect(seen.at(-1)).toBe(runs.length);
  }, 60_000);

  it('keeps the courses of a bounded number of cases, with all their strategies', async () => {
    const { runs } = parse(`guests: [idle]\nlinks:\n${links(90)}\n`);
    const { rows, courses } = await runSweep(runs, { threads: 1 });
    expect(rows).toHaveLength(360);
    expect(courses.length).toBeLessThanOrEqual(MOST_CASES * 4);
    expect(courses.length % 4).toBe(0);
    for (const { series } of courses) expect(series.length).toBeLessThanOrEqual(102);
  });

  it('is written as CSV that a spreadsheet takes for what it is', async () => {
    const { runs } = parse(
      'strategies: [precopy]\nguests: [idle]\nlinks: {"=1+1, \\"x\\"": {bandwidth: 1gbit}}\n',
    );
    const { rows } = await runSweep(runs);
    const [head, line, end] = csvOf(rows).split('\r\n');
    expect(head).toMatch(/^guest,memoryBytes,link,strategy/);
    expect(line).toContain(`idle,268435456,"'=1+1, ""x""",precopy,precopy,completed`);
    expect(end).toBe('');
  });

  it('says all that is wrong with its file, with lines', () => {
    const wrong = () => parse('guests: [idle]\nsizes: [12]\nlinks:\n  a: { bandwidth: 5 }\nfoo: 1\n');
    for (const part of [
      /sizes\[0\]: .*\(line 2\)/,
      /links\.a\.bandwidth: .*\(line 4\)/,
      /unknown key foo \(line 5\)/,
    ])
      expect(wrong).toThrow(part);
    expect(() => parse('guests: [nobody]\nlinks: {a: {bandwidth: 1gbit}}\n')).toThrow(/no guest "nobody"/);
    expect(() => parse('guests: [idle, idle]\nlinks: {a: {bandwidth: 1gbit}}\n')).toThrow(/two guests/);
    expect(() => parse(`guests: [database]\nsizes: [64MiB]\nlinks: {a: {bandwidth: 1gbit}}\n`)).toThrow(
      /database cannot have 64 MiB/,
    );
    expect(() => parse('guests: [idle]\nlinks:\n  __proto__: {bandwidth: 1gbit}\n')).toThrow(
      /links\.__proto__: no link can be called that: choose another name \(line 3\)/,
    );
    expect(() => parse('guests: [idle]\nlinks: {}\n')).toThrow(/name at least one link/);
  });
});
