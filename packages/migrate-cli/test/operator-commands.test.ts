import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { migrateRequestSchema } from '@vmferry/engine/options';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeOperations } from '../../agent-core/test/fake-operations.ts';
import type { AgentFactory } from '../src/embedded.ts';
import { NO_AGENTS, serveFake, start, vmferry } from './rig.ts';

const request = migrateRequestSchema.parse({ guest: 'sim:web1', to: 'wss://host2:4447' });
let agent: Awaited<ReturnType<typeof serveFake>>;
beforeEach(async () => {
  agent = await serveFake();
});
afterEach(() => agent.close());

describe('vmferry list and status', () => {
  it('list migrations for people and for programs', async () => {
    expect((await vmferry('list', '--agent', agent.url)).stdout).toBe('no migrations\n');
    agent.fake.migrate(request);
    agent.fake.migrate({ ...request, guest: 'sim:web2' }).finish({ outcome: 'failed' });
    const people = await vmferry('list', '--agent', agent.url);
    expect(people.stdout).toMatch(/^ID +GUEST +ROLE +PEER/);
    expect(people.stdout).toMatch(/m1 +sim:web1 +source +wss:\/\/host2:4447 +auto +connecting/);
    expect(people.stdout).toMatch(/m2 +sim:web2 .* failed +2023-11-14 22:13:20 +1\.20 s/);
    const program = await vmferry('list', '--agent', agent.url, '--json');
    expect(JSON.parse(program.stdout)).toMatchObject({ schema: 1, migrations: [{ id: 'm1' }, { id: 'm2' }] });
  });

  it('tell how an agent and a migration are', async () => {
    agent.fake.migrate(request);
    expect((await vmferry('status', '--agent', agent.url)).stdout).toContain('1 running, 0 ended');
    agent.fake.migrations[0]?.finish();
    const ended = await vmferry('status', 'm1', '--agent', agent.url);
    expect(ended.stdout).toContain('outcome   completed');
    const json = await vmferry('status', 'm1', '--agent', agent.url, '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({
      summary: { id: 'm1' },
      report: { outcome: 'completed' },
    });
  });

  it('refuse a migration that is not known', async () => {
    const { status, stdout, stderr } = await vmferry('status', 'nope', '--agent', agent.url, '--json');
    expect(status).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({
      outcome: 'refused',
      error: { code: 'E_USAGE', side: 'source' },
    });
    expect(stderr).toContain('this agent knows no migration nope');
  });
});

describe('vmferry watch', () => {
  it('finds the one that runs, and ends with its status', async () => {
    const migration = agent.fake.migrate(request);
    const running = start(['watch', '--agent', agent.url, '--json']);
    await expect.poll(() => migration.hub.observers).toBe(1);
    migration.finish({ outcome: 'failed' });
    expect(await running.status).toBe(1);
    expect(JSON.parse(running.stdout.text)).toMatchObject({ outcome: 'failed' });
  });

  it('wants a name when several run, and says when none does', async () => {
    expect((await vmferry('watch', '--agent', agent.url)).stderr).toContain('no migration runs');
    agent.fake.migrate(request);
    agent.fake.migrate(request);
    const { status, stderr } = await vmferry('watch', '--agent', agent.url);
    expect(status).toBe(2);
    expect(stderr).toContain('name one of m1, m2');
  });

  it('leaves the migration alone when it is interrupted', async () => {
    const migration = agent.fake.migrate(request);
    const running = start(['watch', 'm1', '--agent', agent.url, '--json']);
    await expect.poll(() => migration.hub.observers).toBe(1);
    running.signals.emit('SIGINT');
    expect(await running.status).toBe(130);
    expect(migration.cancelled).toBe(0);
    expect(JSON.parse(running.stdout.text)).toMatchObject({ summary: { id: 'm1' }, report: null });
    expect(running.stderr.text).toContain('the migration goes on');
  });
});

describe('vmferry cancel', () => {
  it.each([
    ['cancelled', 0],
    ['completed', 1],
    ['attention', 3],
  ] as const)('waits for the end; %s is status %d', async (outcome, status) => {
    const migration = agent.fake.migrate(request);
    migration.onCancel = () => migration.finish({ outcome });
    const ended = await vmferry('cancel', 'm1', '--agent', agent.url, '--json');
    expect(ended.status).toBe(status);
    expect(JSON.parse(ended.stdout)).toMatchObject({ outcome });
    expect(migration.cancelled).toBe(1);
  });
});

describe('vmferry agent', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vmferry-agent-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('serves operators behind its token until it is told to end', async () => {
    const token = join(dir, 'token');
    const socket = `ws+unix:${join(dir, 'agent.sock')}`;
    await writeFile(token, 'a-token-of-some-length\n');
    await writeFile(join(dir, 'dest.yaml'), 'tokenFile: token\nallowGuests: ["sim:*"]\n');
    const closed: string[] = [];
    const agents: AgentFactory = {
      ...NO_AGENTS,
      dest: async ({ allowGuests, token: given }) => {
        expect([allowGuests, given]).toEqual([['sim:*'], 'a-token-of-some-length']);
        return Object.assign(new FakeOperations('dest'), {
          close: async () => void closed.push('dest'),
          settle: async () => {},
          acceptMigration: () => {},
          abandon: () => {},
        });
      },
    };
    const running = start(['agent', 'dest', '--listen', socket, '--config', join(dir, 'dest.yaml')], {
      agents,
    });
    await expect.poll(() => running.stderr.text).toContain('dest agent listens');
    const refused = await vmferry('status', '--agent', socket);
    expect(refused.status).toBe(2);
    expect(refused.stderr).toContain('--token-file');
    const let_in = await vmferry('status', '--agent', socket, '--token-file', token);
    expect(let_in.stdout).toContain(`dest agent 0.1.0 at ${socket}`);
    running.signals.emit('SIGTERM');
    expect(await running.status).toBe(0);
    expect(closed).toEqual(['dest']);
    expect(running.stdout.text).toBe('');
  });

  it('waits for guests that come in, and at the second signal no more', async () => {
    const asked: string[] = [];
    let abandon: () => void = () => {};
    const abandoned = new Promise<void>((resolve) => {
      abandon = resolve;
    });
    const agents: AgentFactory = {
      ...NO_AGENTS,
      dest: async () =>
        Object.assign(new FakeOperations('dest'), {
          close: async () => {
            asked.push('close');
            await abandoned;
          },
          settle: async () => {},
          acceptMigration: () => {},
          abandon: () => {
            asked.push('abandon');
            abandon();
          },
        }),
    };
    const socket = `ws+unix:${join(dir, 'agent.sock')}`;
    const running = start(['agent', 'dest', '--listen', socket, '--no-rehearsal'], { agents });
    await expect.poll(() => running.stderr.text).toContain('dest agent listens');
    running.signals.emit('SIGTERM');
    await expect.poll(() => asked).toEqual(['close']);
    running.signals.emit('SIGTERM');
    expect(await running.status).toBe(0);
    expect(asked).toEqual(['close', 'abandon']);
  });

  it('refuses to listen in plain text beyond this host, and lets go of the agent', async () => {
    let closed = 0;
    const agents: AgentFactory = {
      ...NO_AGENTS,
      source: async () =>
        Object.assign(new FakeOperations(), {
          close: async () => void closed++,
          settle: async () => {},
        }),
    };
    const running = start(['agent', 'source', '--listen', 'ws://0.0.0.0:0'], { agents });
    expect(await running.status).toBe(2);
    expect(running.stderr.text).toContain('in plain text');
    expect(closed).toBe(1);
  });

  it('lists the keys of its configuration in its help', async () => {
    expect((await vmferry('agent', '--help')).stdout).toContain('bufferBytes');
  });
});
