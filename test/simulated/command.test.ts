/** `vmferry` itself, as people and pipelines call it: what is built, as processes. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { repoRoot } from '../rig/repo.ts';

const COMMAND = join(repoRoot(), 'vmferry');
let dir: string;
const children: (() => Promise<void>)[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-sim-'));
});
afterEach(async () => {
  for (const end of children.splice(0)) await end();
});
afterAll(() => rm(dir, { recursive: true, force: true }));

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function vmferry(...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(COMMAND, [...args], { cwd: dir }, (error, stdout, stderr) =>
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

/** Resolves with the URL that the agent listens on. */
async function agent(role: 'source' | 'dest' | 'host', ...args: readonly string[]): Promise<string> {
  const stateDir = await mkdtemp(join(dir, `${role}-`));
  const line = ['agent', role, '--listen', 'ws://127.0.0.1:0', '--state-dir', stateDir, ...args];
  const child = spawn(COMMAND, line, { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
  });
  children.push(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  const said: string[] = [];
  for await (const log of createInterface({ input: child.stderr })) {
    said.push(log);
    const url = /ws:\/\/127\.0\.0\.1:\d+/.exec(log)?.[0];
    if (url !== undefined) return url;
  }
  throw new Error(`the ${role} agent does not listen: ${said.join('\n')}`);
}

const SOUND = 'are what the workload must have produced';
const TINY = `
name: tiny
memory: 16MiB
vcpus: 2
workload:
  kind: mix
  parts:
    - {kind: zipf, pagesPerSec: 2000, exponent: 1.1}
    - {kind: trace, file: recorded.trace}
`;

beforeAll(async () => {
  await writeFile(join(dir, 'tiny.yaml'), TINY);
  await writeFile(join(dir, 'recorded.trace'), '# ms page access\n0 1 w\n5 2 r\n20 3 w\n');
});

test('a guest of a file moves inside the command, with a JUnit report for the pipeline', async () => {
  const { status, stdout, stderr } = await vmferry(
    'migrate',
    'sim:./tiny.yaml',
    '--strategy',
    'postcopy',
    '--state-dir',
    join(dir, 'state'),
    '--json',
    '--junit',
    join(dir, 'junit.xml'),
  );
  expect(status, stderr).toBe(0);
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ outcome: 'completed', guest: 'sim:tiny', strategy: 'postcopy' });
  expect(report.notes).toContainEqual(expect.stringContaining(SOUND));
  const junit = await readFile(join(dir, 'junit.xml'), 'utf8');
  expect(junit).toContain('<testsuite name="vmferry" tests="1" failures="0" errors="0"');
  expect(junit).toContain('name="sim:tiny by postcopy"');
});

test('a terminal that is closed cancels the migration, which is settled before the command ends', async () => {
  const events = join(dir, 'closed.jsonl');
  const line = [
    ...[COMMAND, 'migrate', 'sim:./tiny.yaml', '--strategy', 'precopy', '--max-bandwidth', '1MB/s'],
    ...['--state-dir', join(dir, 'closed'), '--events', events],
  ];
  const terminal = spawn('script', ['-qec', line.join(' '), '/dev/null'], { cwd: dir, stdio: 'ignore' });
  const gone = once(terminal, 'exit');
  children.push(async () => {
    terminal.kill('SIGKILL');
    await gone;
  });
  const told = async () => {
    const text = await readFile(events, 'utf8').catch(() => '');
    return text
      .split('\n')
      .slice(0, -1)
      .map((one): unknown => JSON.parse(one));
  };
  await expect.poll(told).toContainEqual(expect.objectContaining({ type: 'phase', phase: 'precopy' }));
  terminal.kill('SIGKILL');
  const report = { outcome: 'cancelled', error: { code: 'E_CANCELLED', guestRunsOn: 'source' } };
  await expect.poll(async () => (await told()).at(-1)).toMatchObject({ type: 'finished', report });
});

test('an agent that cannot write its log any more lives on', async () => {
  const full = await open('/dev/full', 'w');
  const socket = join(dir, 'agent.sock');
  const line = ['agent', 'dest', '--listen', `ws+unix:${socket}`, '--state-dir', join(dir, 'full')];
  const child = spawn(COMMAND, [...line, '--no-rehearsal'], { stdio: ['ignore', 'ignore', full.fd] });
  const ended = once(child, 'exit');
  children.push(async () => {
    child.kill('SIGTERM');
    await ended;
    await full.close();
  });
  await expect
    .poll(() =>
      stat(socket).then(
        (found) => found.isSocket(),
        () => false,
      ),
    )
    .toBe(true);
  expect(await vmferry('list', '--agent', `ws+unix:${socket}`)).toMatchObject({ status: 0 });
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
});

describe('between two agents', () => {
  test('a guest moves from one process to the other, by its name on both', async () => {
    const [from, to] = await Promise.all([
      agent('source', '--simulate', './tiny.yaml'),
      agent('dest', '--simulate', './tiny.yaml', '--allow-guest', 'sim:tiny'),
    ]);
    const { status, stdout, stderr } = await vmferry(
      'migrate',
      'sim:tiny',
      '--from',
      from,
      '--to',
      to,
      '--strategy',
      'hybrid',
      '--json',
    );
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout).notes).toContainEqual(expect.stringContaining(SOUND));
    // It is there now: the source starts no second one, and none of another source is taken in.
    const again = await vmferry('migrate', 'sim:tiny', '--from', from, '--to', to, '--json');
    expect(again.status).toBe(2);
    expect(JSON.parse(again.stdout).error).toMatchObject({ code: 'E_GUEST_UNREACHABLE', side: 'source' });
    const other = await vmferry('migrate', 'sim:./tiny.yaml', '--to', to, '--json');
    expect(other.status).toBe(2);
    expect(JSON.parse(other.stdout).error).toMatchObject({ code: 'E_GUEST_BUSY', side: 'dest' });
  });

  test('a guest goes from process to process and back, where each has both roles', async () => {
    const [a, b, c] = await Promise.all([
      agent('host', '--start', './tiny.yaml'),
      agent('host', '--simulate', './tiny.yaml'),
      agent('host', '--simulate', './tiny.yaml'),
    ]);
    let writes = 0;
    for (const [from, to, strategy] of [
      [a, b, 'postcopy'],
      [b, c, 'precopy'],
      [c, a, 'hybrid'],
      [a, c, 'postcopy'],
    ] as const) {
      const line = ['migrate', 'sim:tiny', '--from', from, '--to', to, '--strategy', strategy, '--json'];
      const { status, stdout, stderr } = await vmferry(...line);
      expect(status, stderr).toBe(0);
      const sound = (JSON.parse(stdout).notes as string[]).find((note) => note.includes(SOUND))!;
      const now = Number(/\((\d+) writes/.exec(sound)?.[1]);
      expect(now).toBeGreaterThan(writes);
      writes = now;
    }
  });

  test('an agent takes in only the simulated guests that it was given', async () => {
    const to = await agent('dest', '--simulate', 'idle');
    const { status, stdout } = await vmferry('migrate', 'sim:./tiny.yaml', '--to', to, '--json');
    expect(status).toBe(2);
    expect(JSON.parse(stdout).error).toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      side: 'dest',
      message: expect.stringContaining('there is no simulated guest "tiny" here; there are idle'),
    });
  });

  test('an agent whose guest file is wrong says so and does not start', async () => {
    await writeFile(join(dir, 'bad.yaml'), 'name: bad\nmemory: 12\n');
    const { status, stderr } = await vmferry('agent', 'dest', '--simulate', './bad.yaml');
    expect(status).toBe(2);
    expect(stderr).toMatch(
      /bad\.yaml: memory: write a size, as in 512MiB or 512M \(powers of 1024\) or 512MB \(powers of 1000\) \(line 2\)/,
    );
  });
});
