import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { libraryGuest } from '../../src/guest-file/library.ts';
import { costsNamed } from '../../src/scenario/costs.ts';
import { ScenarioError } from '../../src/scenario/errors.ts';
import { scenarioJsonSchema, sweepJsonSchema } from '../../src/scenario/json-schema.ts';
import { loadScenario } from '../../src/scenario/load.ts';
import { parseScenario, type Surroundings } from '../../src/scenario/parse.ts';

const surroundings: Surroundings = {
  guestFile: (path) => ({ ...libraryGuest('web')!, name: path }),
  trace: () => ({
    reads: { times: new Float64Array(0), pages: new Uint32Array(0), before: new Int32Array(0) },
    writes: { times: Float64Array.of(1), pages: Uint32Array.of(7), before: Int32Array.of(-1) },
  }),
};
const parse = (text: string) => parseScenario(text, 'scenario.yaml', surroundings);
const LINK = 'link: { bandwidth: 10gbit }\n';

describe('a scenario', () => {
  it('needs a guest and a link, and has defaults for the rest', () => {
    const { name, simulation } = parse(`guest: web\n${LINK}`);
    expect(name).toBe('web');
    expect(simulation.guest).toMatchObject({
      memoryBytes: 2 ** 29,
      vcpus: 2,
      ranSeconds: 30,
      dirtyLog: 'round',
    });
    expect(simulation.link.initial).toMatchObject({ bandwidth: 1.25e9, latencyMs: 0.1, loss: 0 });
    expect(simulation.request).toMatchObject({
      strategy: 'auto',
      maxDowntimeMs: 300,
      streams: 1,
      compress: 'auto',
    });
    expect(simulation.costs).toEqual(costsNamed('vmferry'));
  });

  it('takes its guest from the library, from a file, or as it stands there', () => {
    expect(parse(`guest: { file: mine.yaml }\n${LINK}`).name).toBe('mine.yaml');
    const inline = `guest: { name: own, memory: 1GiB, workload: { kind: trace, file: t.txt } }\n${LINK}`;
    expect(parse(inline).simulation.guest).toMatchObject({ name: 'own', memoryBytes: 2 ** 30 });
    expect(parse(`guest: web\nmemory: 8GiB\n${LINK}`).simulation.guest.memoryBytes).toBe(8 * 2 ** 30);
  });

  it('changes the link as time goes on; what is not named stays', () => {
    const { simulation } = parse(
      'guest: web\nlink:\n  bandwidth: 1gbit\n  loss: 0.01\n  changes:\n' +
        '    - { at: 20s, latency: 5ms }\n    - { at: 10s, bandwidth: 500mbit }\n',
    );
    expect(simulation.link.changes).toEqual([
      {
        atMs: 10_000,
        conditions: expect.objectContaining({ bandwidth: 62.5e6, latencyMs: 0.1, loss: 0.01 }),
      },
      { atMs: 20_000, conditions: expect.objectContaining({ bandwidth: 62.5e6, latencyMs: 5, loss: 0.01 }) },
    ]);
  });

  it('keeps the half of what competes that a change does not name', () => {
    const { initial, changes } = parse(
      'guest: web\nlink:\n  bandwidth: 1gbit\n  competing: { rate: 100mbit, streams: 2 }\n' +
        '  changes: [{ at: 1s, competing: { rate: 200mbit } }, { at: 2s, competing: { streams: 0 } }]\n',
    ).simulation.link;
    const others = [initial, ...changes.map(({ conditions }) => conditions)].map(
      ({ otherBytesPerSec, otherStreams }) => [otherBytesPerSec, otherStreams],
    );
    expect(others).toEqual([
      [12.5e6, 2],
      [25e6, 2],
      [25e6, 0],
    ]);
  });

  it('takes sizes of the schema’s own examples', () => {
    for (const example of ['64MiB', '512MB']) {
      const { memoryBytes } = parse(`guest: { name: x, memory: 1MiB }\nmemory: ${example}\n${LINK}`)
        .simulation.guest;
      expect(memoryBytes).toBe(example === '512MB' ? 512e6 : 64 * 2 ** 20);
    }
  });

  it('begins with the migration where its guest plays a trace', () => {
    const ran = (workload: string, more = '') =>
      parse(`guest: { name: x, memory: 1GiB, workload: ${workload} }\n${LINK}${more}`).simulation.guest
        .ranSeconds;
    const trace = '{ kind: trace, file: t.txt }';
    expect(ran(trace)).toBe(0);
    expect(ran(`{ kind: mix, parts: [{ kind: idle }, ${trace}] }`)).toBe(0);
    expect(ran(`{ kind: phases, phases: [{ seconds: 1, workload: ${trace} }] }`)).toBe(0);
    expect(ran(trace, 'ran: 5s\n')).toBe(5);
    expect(ran('{ kind: idle }')).toBe(30);
  });

  it('has costs by name, or a name and what is different', () => {
    const { costs } = parse(`guest: web\ncosts: { like: xen-2005, resumeMs: 9 }\n${LINK}`).simulation;
    expect(costs).toEqual({ ...costsNamed('xen-2005'), resumeMs: 9 });
  });

  it.each([
    ['guest: web\n', /link: is missing/],
    [`guest: nobody\n${LINK}`, /guest: the library has no guest "nobody"; it has .*\(line 1\)/],
    [`guest: { name: x, memory: 5 }\n${LINK}`, /guest\.memory: write a size.*\(line 1\)/],
    [
      `guest: { name: x, memory: 1GiB, workload: { kind: uniform, pagesPerSec: 0 } }\n${LINK}`,
      /guest\.workload\.pagesPerSec: .*\(line 1\)/,
    ],
    ['guest: web\nlink: { bandwidth: fast }\n', /link\.bandwidth: "fast" is not a rate.*\(line 2\)/],
    [
      `guest: web\n${LINK}migration: { maxDowntime: 300 }\n`,
      /maxDowntime: write it with its unit.*\(line 3\)/,
    ],
    [`guest: web\n${LINK}migration: { maxDowntime: 0ms }\n`, /maxDowntime: from 1ms to 2000s \(line 3\)/],
    [`guest: web\n${LINK}migration: { deadline: 8d }\n`, /deadline: from 1ms to 7d \(line 3\)/],
    [`guest: web\n${LINK}migration: { headStart: 2m }\n`, /headStart: at most 60s \(line 3\)/],
    ['guest: web\nlink: { bandwidth: 1gbit, windowPerStream: 0KiB }\n', /windowPerStream: at least 4KiB/],
    [`guest: web\n${LINK}colour: red\n`, /unknown key colour \(line 3\)/],
    [
      `guest: web\n${LINK}policy: {}\n`,
      /policy\.kind: is missing; there are vmferry, adaptive-rate \(line 3\)/,
    ],
    ['guest: [\n', /scenario\.yaml: .*line 2/s],
    ['', /keys and values/],
    [`guest: web\ncosts: nobody\n${LINK}`, /costs: there are vmferry, xen-2005, .* \(line 2\)/],
    [`guest: web\ncosts: { like: vmferry, faultsMs: 1 }\n${LINK}`, /unknown key costs\.faultsMs \(line 2\)/],
    [`guest: web\nguest: web\n${LINK}`, /unique/],
    [`guest: builder\nmemory: 4KiB\n${LINK}`, /cannot have/],
    [
      `guest: web\nmemory: 1.5GB\n${LINK}`,
      /no whole pages of 4096: write 1464840KiB or 1464844KiB \(line 2\)/,
    ],
  ])('is refused with what is wrong and where: %j', (text, message) => {
    expect(() => parse(text)).toThrow(ScenarioError);
    expect(() => parse(text)).toThrow(message);
  });

  it('that cannot be read says so', () => {
    expect(() => loadScenario('/nowhere/scenario.yaml')).toThrow(
      /cannot read the scenario .*: there is no such file/,
    );
  });

  it.each([
    ['scenario.schema.json', scenarioJsonSchema],
    ['sweep.schema.json', sweepJsonSchema],
  ])('has %s for editors, as the schema is now', (file, schema) => {
    const path = fileURLToPath(new URL(`../../${file}`, import.meta.url));
    // scripts/scenario-schemas.mjs writes them anew.
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(JSON.parse(JSON.stringify(schema())));
  });
});
