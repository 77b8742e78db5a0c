import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { vmferry } from './rig.ts';

const PUBLISHED = fileURLToPath(new URL('../../memsim/published/', import.meta.url));
let dir: string;
const path = (name: string) => join(dir, name);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-sim-'));
  await writeFile(path('web.yaml'), 'guest: web\nlink: { bandwidth: 1gbit }\n');
  await writeFile(
    path('hog.yaml'),
    'guest: memory-hog\nlink: { bandwidth: 100mbit }\nmigration: { strategy: precopy, onStall: abort, maxDowntime: 1s }\n',
  );
  await writeFile(path('mine.yaml'), 'name: mine\nmemory: 128MiB\n');
  await writeFile(path('file.yaml'), 'guest: { file: mine.yaml }\nlink: { bandwidth: 1gbit }\n');
  await writeFile(
    path('sweep.yaml'),
    'guests: [idle, web]\nlinks: { a: { bandwidth: 1gbit }, b: { bandwidth: 10gbit } }\n',
  );
});
afterAll(() => rm(dir, { recursive: true }));

describe('vmferry sim', () => {
  it('says what a migration would take, for people', async () => {
    const { status, stdout, stderr } = await vmferry('sim', path('web.yaml'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/guest web: 512 MiB, 2 vCPUs, mix\nlink: 1\.00 Gbit\/s/);
    expect(stdout).toMatch(/outcome {5}completed: in virtual time/);
    expect(stdout).toMatch(/round {2}guest memory/);
  });

  it('prints a report as JSON, with the course of the migration', async () => {
    const { status, stdout } = await vmferry('sim', path('web.yaml'), '--json', '--strategy', 'hybrid');
    expect(status).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ schema: 1, outcome: 'completed', strategy: 'hybrid', guest: 'web' });
    expect(report.simulation.series.length).toBeGreaterThan(1);
    expect(report.simulation.decisions.at(-1).what).toBe('start post-copy');
  });

  it('ends as the migration does: 1 where the guest stays', async () => {
    const { status, stdout } = await vmferry('sim', path('hog.yaml'));
    expect(status).toBe(1);
    expect(stdout).toMatch(/E_STALLED/);
  });

  it('finds a guest file beside the scenario', async () => {
    const { status, stdout } = await vmferry('sim', path('file.yaml'));
    expect(status).toBe(0);
    expect(stdout).toMatch(/guest mine: 128 MiB/);
  });

  it('holds a scenario against what it expects', async () => {
    const published = `${PUBLISHED}clark-2005-specweb99.yaml`;
    const { status, stdout } = await vmferry('sim', published);
    expect(status).toBe(0);
    expect(stdout).toMatch(/downtimeMs +210 ms .* holds/);
    const text = await readFile(published, 'utf8');
    await writeFile(path('wrong.yaml'), text.replace('value: 210', 'value: 21'));
    const wrong = await vmferry('sim', path('wrong.yaml'));
    expect(wrong.status).toBe(1);
    expect(wrong.stdout).toMatch(/downtimeMs +21 ms .* FAILS/);
  });

  it('compares the strategies and says which to choose', async () => {
    const { status, stdout } = await vmferry('sim', path('hog.yaml'), '--compare');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^precopy +failed/m);
    expect(stdout).toMatch(
      /^hybrid: precopy: its rounds do not converge\. Rounds first leave fewer faults\.$/m,
    );
    const json = JSON.parse((await vmferry('sim', path('hog.yaml'), '--compare', '--json')).stdout);
    expect(json.recommended.strategy).toBe('hybrid');
    expect(json.strategies.map(({ strategy }: { strategy: string }) => strategy)).toEqual([
      'precopy',
      'hybrid',
      'postcopy',
    ]);
  });

  it('writes a sweep as JSON, CSV and a page', async () => {
    const { status, stdout } = await vmferry('sim', '--sweep', path('sweep.yaml'), '--out', path('out'));
    expect(status).toBe(0);
    expect(stdout).toMatch(/^sweep: 16 migrations in /);
    expect(stdout).toMatch(/^postcopy +4 +4 /m);
    expect(JSON.parse(await readFile(path('out.json'), 'utf8')).runs).toHaveLength(16);
    expect((await readFile(path('out.csv'), 'utf8')).split('\r\n')).toHaveLength(18);
    expect(await readFile(path('out.html'), 'utf8')).toMatch(/^<!doctype html>.*16 simulated migrations/s);
    const json = await vmferry('sim', '--sweep', path('sweep.yaml'), '--out', path('out'), '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({ schema: 1, runs: 16, files: { csv: path('out.csv') } });
  });

  it.each([
    [['sim'], /name a scenario/],
    [['sim', 'a.yaml', '--sweep', 'b.yaml'], /not both/],
    [['sim', '--sweep', 'b.yaml', '--strategy', 'auto'], /names its strategies itself/],
    [['sim', 'a.yaml', '--out', 'x'], /belong to --sweep/],
    [['sim', '--sweep', 'b.yaml', '--threads', '0'], /--threads: at least 1/],
    [['sim', '/nowhere.yaml'], /cannot read the scenario \/nowhere\.yaml: there is no such file/],
    [['sim', '--sweep', '/nowhere.yaml'], /cannot read the sweep/],
  ])('refuses %j', async (args, message) => {
    const { status, stdout, stderr } = await vmferry(...args, '--json');
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/guest {2}/);
    const error = { side: 'cli', guestRunsOn: 'neither' };
    expect(JSON.parse(stdout)).toMatchObject({ outcome: 'refused', error });
  });

  it('says where it could not write, before anything is simulated', async () => {
    const sizes = Array.from({ length: 1000 }, (_, index) => `${256 + index}MiB`).join(', ');
    const links = Array.from({ length: 12 }, (_, index) => `l${index}: { bandwidth: 1gbit }`).join(', ');
    // Would take minutes.
    await writeFile(path('long.yaml'), `guests: [idle]\nsizes: [${sizes}]\nlinks: { ${links} }\n`);
    const { status, stderr } = await vmferry('sim', '--sweep', path('long.yaml'), '--out', '/nowhere/out');
    expect(status).toBe(2);
    expect(stderr).toMatch(/--out: cannot write \/nowhere\/out\.json/);
    await mkdir(path('taken.csv'));
    const taken = await vmferry('sim', '--sweep', path('long.yaml'), '--out', path('taken'));
    expect(taken.stderr).toMatch(/--out: cannot write .*taken\.csv/);
    expect(await readdir(dir)).not.toContain('taken.json');
  });

  it('does not overwrite the sweep that it reads', async () => {
    const text = '{"guests": ["idle"], "links": {"a": {"bandwidth": "1gbit"}}}';
    await writeFile(path('all.json'), text);
    const { status, stderr } = await vmferry('sim', '--sweep', path('all.json'), '--out', path('all'));
    expect(status).toBe(2);
    expect(stderr).toMatch(/all\.json is the sweep itself/);
    expect(await readFile(path('all.json'), 'utf8')).toBe(text);
  });
});
