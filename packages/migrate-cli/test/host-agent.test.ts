/** Agents of both roles: real ones, over real sockets, with a simulated guest that moves from host to host. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { embeddedAgents } from '../src/embedded.ts';
import { type Running, start, vmferry } from './rig.ts';

const GUEST = `
name: tiny
memory: 16MiB
vcpus: 2
workload:
  kind: mix
  parts:
    - { kind: zipf, pagesPerSec: 2000, exponent: 1.1 }
    - { kind: read-mostly, readsPerSec: 1000, pagesPerSec: 100 }
`;
const SOUND = /^Verified: all 4096 pages and the device state are .*\((\d+) writes/;

let dir: string;
let guest: string;
let hosts: Running[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-host-'));
  guest = join(dir, 'tiny.yaml');
  await writeFile(guest, GUEST);
  hosts = [];
});
afterEach(async () => {
  for (const host of hosts) host.signals.emit('SIGTERM');
  expect(await Promise.all(hosts.map(({ status }) => status))).toEqual(hosts.map(() => 0));
  await rm(dir, { recursive: true, force: true });
});

/** An agent of both roles; gives its URL. */
async function host(...options: readonly string[]): Promise<string> {
  return await agent('host', ...options);
}

async function agent(role: string, ...options: readonly string[]): Promise<string> {
  const stateDir = join(dir, `state${hosts.length}`);
  const line = [
    'agent',
    role,
    '--listen',
    'ws://127.0.0.1:0',
    '--state-dir',
    stateDir,
    '--no-rehearsal',
    ...options,
  ];
  const running = start(line, { agents: embeddedAgents });
  hosts.push(running);
  const listens = /ws:\/\/127\.0\.0\.1:\d+/;
  // The first one loads the agents.
  await expect.poll(() => running.stderr.text, { timeout: 20_000 }).toMatch(listens);
  return listens.exec(running.stderr.text)![0];
}

async function migrate(from: string, to: string, ...options: readonly string[]): Promise<MigrationReport> {
  const { stdout } = await vmferry('migrate', 'sim:tiny', '--from', from, '--to', to, '--json', ...options);
  return JSON.parse(stdout) as MigrationReport;
}

/** Moves the guest and gives how many writes it was verified to have done. */
async function moved(from: string, to: string, strategy: string): Promise<number> {
  const report = await migrate(from, to, '--strategy', strategy);
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed', strategy, error: null });
  const verified = report.notes.map((note) => SOUND.exec(note)?.[1]).filter((writes) => writes !== undefined);
  expect(verified).toHaveLength(1);
  return Number(verified[0]);
}

describe.each(['precopy', 'postcopy', 'hybrid'])('by %s a simulated guest', (strategy) => {
  it('goes there and back and there again, whole each time', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    const there = await moved(a, b, strategy);
    const back = await moved(b, a, strategy);
    const again = await moved(a, b, strategy);
    // The same guest, not one that began anew.
    expect(back).toBeGreaterThan(there);
    expect(again).toBeGreaterThan(back);
  });

  it('goes from host to host to host, whole each time', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    const c = await host('--simulate', guest);
    const first = await moved(a, b, strategy);
    expect(await moved(b, c, strategy)).toBeGreaterThan(first);
  });
});

it('a guest that came from a command or a source agent moves on, and one that left for a destination agent stays', async () => {
  const b = await host('--simulate', guest);
  const c = await agent('dest', '--simulate', guest);
  const line = ['migrate', `sim:${guest}`, '--to', b, '--state-dir', join(dir, 'command'), '--json'];
  expect(await start(line, { agents: embeddedAgents }).status).toBe(0);
  await moved(b, c, 'hybrid');
  expect(await migrate(c, b)).toMatchObject({
    outcome: 'refused',
    error: { code: 'E_UNSUPPORTED', side: 'dest', remedy: expect.stringContaining('vmferry agent host') },
  });
});

describe('what cannot be moved from a host is refused, with the reason', () => {
  it('a guest that has left, and one that has not come yet', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    expect(await migrate(b, a)).toMatchObject({
      outcome: 'refused',
      error: {
        code: 'E_GUEST_UNREACHABLE',
        side: 'source',
        message: 'sim:tiny may come to this host, and has not yet',
      },
    });
    await moved(a, b, 'precopy');
    expect(await migrate(a, b)).toMatchObject({
      outcome: 'refused',
      error: {
        code: 'E_GUEST_UNREACHABLE',
        side: 'source',
        message: 'sim:tiny has left this host and is not started again',
        remedy: expect.stringContaining('vmferry list'),
      },
    });
    // It was left alone.
    await moved(b, a, 'precopy');
  });

  it('a guest of which not all is there', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    const events = join(dir, 'events.jsonl');
    // 16 MiB take some seconds.
    const slow = [
      '--strategy',
      'postcopy',
      '--head-start',
      '0s',
      '--max-bandwidth',
      '30mbit',
      '--compress',
      'off',
    ];
    const arriving = migrate(a, b, ...slow, '--events', events);
    const running = async (): Promise<unknown> => {
      const { stdout } = await vmferry('list', '--agent', b, '--json');
      return JSON.parse(stdout).migrations[0]?.phase;
    };
    await expect.poll(running, { timeout: 20_000, interval: 20 }).toBe('postcopy');
    const refused = { outcome: 'refused', error: { code: 'E_GUEST_BUSY', message: expect.anything() } };
    expect(await migrate(b, a)).toMatchObject({
      ...refused,
      error: {
        code: 'E_GUEST_BUSY',
        side: 'source',
        message: expect.stringContaining('not all of sim:tiny'),
      },
    });
    expect(await arriving).toMatchObject({ outcome: 'completed' });
    await moved(b, a, 'postcopy');
  });

  it('a guest to a host that has one of its name', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    const c = await host('--start', guest);
    await moved(a, b, 'precopy');
    const twice = {
      outcome: 'refused',
      error: { code: 'E_GUEST_BUSY', side: 'dest', guestRunsOn: 'source' },
    };
    expect(await migrate(c, b)).toMatchObject(twice);
    expect(await migrate(b, b)).toMatchObject(twice);
    await moved(b, a, 'precopy');
    await moved(c, b, 'precopy');
  });

  it('a name that no guest of the host has', async () => {
    const a = await host('--start', 'idle');
    const { status, stderr } = await vmferry('migrate', 'sim:web', '--from', a, '--to', a);
    expect(status).toBe(2);
    expect(stderr).toContain('there is no simulated guest "web" here; there are idle');
  });
});

describe('vmferry agent host', () => {
  it('says that it has both roles, and lists what came and what left', async () => {
    const a = await host('--start', guest);
    const b = await host('--simulate', guest);
    await moved(a, b, 'precopy');
    await moved(b, a, 'precopy');
    expect((await vmferry('status', '--agent', a)).stdout).toBe(
      `host agent 0.1.0 at ${a}: 0 running, 2 ended\n`,
    );
    const { migrations } = JSON.parse((await vmferry('list', '--agent', a, '--json')).stdout);
    // The latest first.
    expect(migrations).toMatchObject([
      { role: 'dest', guest: 'sim:tiny', outcome: 'completed' },
      { role: 'source', guest: 'sim:tiny', peer: b, outcome: 'completed' },
    ]);
    for (const { id } of migrations) {
      const { status, stdout } = await vmferry('status', id, '--agent', a);
      expect([status, stdout]).toEqual([0, expect.stringContaining('completed')]);
    }
  });

  it('takes its guests from a configuration that hosts share', async () => {
    const config = join(dir, 'host.yaml');
    await writeFile(config, 'simulate: [tiny.yaml, web]\nallowGuests: ["sim:t*"]\n');
    const a = await host('--config', config, '--start', guest);
    await writeFile(config, 'simulate: [web]\nstart: [tiny.yaml]\n');
    const b = await host('--config', config);
    expect(await migrate(a, b)).toMatchObject({ error: { code: 'E_GUEST_BUSY', side: 'dest' } });
    expect(await migrate(b, a, '--dest-guest', 'sim:web')).toMatchObject({
      error: { code: 'E_REFUSED', side: 'dest' },
    });
  });

  it.each([
    [['dest', '--start', 'web'], /the dest agent was told to start .* only one of both roles is/],
    [['source', '--start', 'web'], /the source agent was told to start .* only one of both roles is/],
    [['host', '--start', 'web', '--start', 'web'], /two simulated guests of the name "web"/],
    [['host', '--start', 'nobody'], /nobody/],
    [['host', '--listen', 'ws://0.0.0.0:0'], /in plain text/],
    [['both'], /Allowed choices are source, dest, host/],
  ])('refuses %j', async (args, why) => {
    const running = start(['agent', ...args, '--state-dir', dir], { agents: embeddedAgents });
    expect(await running.status).toBe(2);
    expect(running.stderr.text).toMatch(why);
  });

  it('refuses two guests of one name that are not the same', async () => {
    await writeFile(join(dir, 'other.yaml'), 'name: tiny\nmemory: 32MiB\n');
    const args = ['agent', 'host', '--start', guest, '--simulate', join(dir, 'other.yaml')];
    const running = start(args, { agents: embeddedAgents });
    expect(await running.status).toBe(2);
    expect(running.stderr.text).toContain('two simulated guests of the name "tiny"');
  });
});
