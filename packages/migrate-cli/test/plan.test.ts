import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { createLogger } from '@vmferry/agent-core/log';
import { serveAgent } from '@vmferry/agent-core/serve';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { GuestError } from '@vmferry/engine/errors';
import type { SourceGuest } from '@vmferry/engine/guest';
import { bytesPerSec } from '@vmferry/engine/units';
import { measureLink } from '@vmferry/source-agent/link-probe';
import { WireError } from '@vmferry/wire/errors';
import { describe, expect, it } from 'vitest';
import type { PlanOptions, PlanParts } from '../src/simulation/run-plan.ts';
import { runPlan } from '../src/simulation/run-plan.ts';
import { NO_AGENTS, vmferry } from './rig.ts';

const OPTIONS: PlanOptions = { to: 'ws://127.0.0.1:1', maxDowntime: 300, streams: 1, compress: 'auto' };
const GIB = 2 ** 30;

interface Figures {
  readonly dirty?: (seconds: number) => number | undefined;
  readonly blockers?: (postcopy: boolean) => GuestError[];
  readonly bytesPerSec?: number | undefined;
  readonly content?: NonNullable<Awaited<ReturnType<PlanParts['guest']>>['content']>;
  /** Of a guest whose driver has something to tell the destination: what that one answers. */
  readonly answer?: Awaited<ReturnType<PlanParts['ask']>>;
}

/** What was asked of the guest. */
async function plan(figures: Figures, options: Partial<PlanOptions> = {}) {
  const asked: string[] = [];
  const guest: Partial<Awaited<ReturnType<PlanParts['guest']>>> = {
    ...(figures.content === undefined ? {} : { content: figures.content }),
    describe: async () =>
      ({
        ...{ kind: 'qemu', name: 'web1', hypervisorVersion: '9.0', machine: 'pc', vcpus: 4 },
        ...{ memoryBytes: 8 * GIB, blocks: [], nics: [], running: true, oneLiveRound: false },
      }) as unknown as Awaited<ReturnType<SourceGuest['describe']>>,
    blockers: async ({ postcopy }) => figures.blockers?.(postcopy) ?? [],
    measureDirtyRate: async (seconds = 1) => {
      const rate = (figures.dirty ?? (() => 10e6))(seconds);
      return rate === undefined ? undefined : bytesPerSec(rate);
    },
    close: async () => {
      asked.push('close');
    },
    ...(figures.answer === undefined
      ? {}
      : { preflight: async () => ({ facts: { a: 1 }, notes: ['Of the source.'] }) }),
  };
  const parts: PlanParts = {
    guest: async () => guest as SourceGuest,
    measureLink: async () => ({
      roundTripMs: 0.2,
      bytesPerSec: 'bytesPerSec' in figures ? figures.bytesPerSec : 1.1e9,
    }),
    ask: async (_, { description, postcopy }) => {
      expect(postcopy).toBe(true);
      expect(description.preflight).toEqual({ a: 1 });
      return figures.answer!;
    },
  };
  let stdout = '';
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      stdout += chunk.toString();
      done();
    },
  });
  const io = { stdout: output, stderr: output, env: { HOME: '/nonexistent' }, signals: new EventEmitter() };
  const context = { io, agents: NO_AGENTS, exit: () => {} };
  const status = await runPlan('qemu:/run/web1.sock', { ...OPTIONS, ...options }, context, parts);
  expect(asked).toEqual(['close']);
  return { status, stdout };
}

describe('vmferry plan', () => {
  it('says what was measured, what each strategy takes, and which to choose', async () => {
    const { status, stdout } = await plan({});
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^guest qemu:\/run\/web1\.sock: 8\.00 GiB, 4 vCPUs, dirties 9\.54 MiB in 1\.00 s, 47\.7 MiB in 5\.00 s$/m,
    );
    expect(stdout).toMatch(/^link: 1\.10 GB\/s, round trip 0\.2 ms$/m);
    expect(stdout).toMatch(/^precopy: It meets the goals/m);
    expect(stdout).toMatch(/^note: What memory holds is not known/m);
  });

  it('prints all of it as JSON', async () => {
    const { stdout } = await plan({}, { json: true });
    const json = JSON.parse(stdout);
    expect(json).toMatchObject({
      schema: 1,
      recommended: { strategy: 'precopy' },
      measured: { bytesPerSec: 1.1e9 },
    });
    expect(json.strategies.map(({ strategy }: { strategy: string }) => strategy)).toEqual([
      'precopy',
      'hybrid',
      'postcopy',
    ]);
  });

  it('advises otherwise for a guest that writes faster than the link carries', async () => {
    // A gigabyte and a half, all of it dirty within a second.
    const busy = { dirty: (seconds: number) => 1.5e9 / seconds, bytesPerSec: 110e6 };
    const { stdout } = await plan(busy);
    expect(stdout).toMatch(/^(hybrid|postcopy): precopy: /m);
  });

  it('leaves post-copy out where the guest or its host cannot do it, and says why', async () => {
    const blockers = (postcopy: boolean) =>
      postcopy ? [new GuestError('E_NO_USERFAULTFD', 'no userfaultfd', 'none')] : [];
    const { stdout } = await plan({ blockers });
    expect(stdout).toMatch(/^postcopy +refused .*Post-copy is not possible: no userfaultfd$/m);
  });

  it('says what keeps the guest from being moved at all', async () => {
    const { stdout } = await plan({
      blockers: () => [new GuestError('E_GUEST_BLOCKED', 'it has a device that cannot move', 'Detach it.')],
    });
    expect(stdout).toMatch(
      /^note: As it is, the guest cannot be moved: it has a device that cannot move\. Detach it\.$/m,
    );
  });

  it('tells everything that both sides find in the way, and what they warn of', async () => {
    const answer = {
      ok: false,
      reasons: [
        new GuestError('E_NO_NETWORK', 'there is no br0', 'Make it.'),
        new GuestError('E_NO_USERFAULTFD', 'no userfaultfd there', 'Set it.'),
        new GuestError('E_NAME_TAKEN', 'the name is taken', 'Rename it.'),
      ],
      notes: ['Of the destination.'],
    } as const;
    const blockers = () => [new GuestError('E_DEVICE_BOUND', 'it has a device', 'Detach it.')];
    const { stdout } = await plan({ answer, blockers }, { json: true });
    const json = JSON.parse(stdout);
    expect(json.obstacles).toEqual([
      { side: 'source', code: 'E_DEVICE_BOUND', message: 'it has a device', remedy: 'Detach it.' },
      { side: 'dest', code: 'E_NO_NETWORK', message: 'there is no br0', remedy: 'Make it.' },
      { side: 'dest', code: 'E_NAME_TAKEN', message: 'the name is taken', remedy: 'Rename it.' },
    ]);
    expect(json.notes).toEqual(expect.arrayContaining(['Of the source.', 'Of the destination.']));
    const text = (await plan({ answer })).stdout;
    expect(text).toMatch(/^note: As it is, the guest cannot be moved: there is no br0\. Make it\.$/m);
    expect(text).toMatch(/^postcopy +refused .*Post-copy is not possible: no userfaultfd there$/m);
  });

  it('takes a guest of which nothing is known for one that rests, and says so', async () => {
    const { stdout } = await plan({ dirty: () => undefined });
    expect(stdout).toMatch(/dirty rate not known/);
    expect(stdout).toMatch(/taken for one that rests/);
  });

  it('asks for the bandwidth where the other agent knows no probe', async () => {
    await expect(plan({ bytesPerSec: undefined })).rejects.toThrow(/give --bandwidth/);
    const { stdout } = await plan({ bytesPerSec: undefined }, { bandwidth: 125e6, latency: 1 });
    expect(stdout).toMatch(/^link: 125 MB\/s, round trip 2 ms \(given, not measured\)$/m);
  });

  it('tells errors as a migration does', async () => {
    const parts: PlanParts = {
      guest: () => Promise.reject(new GuestError('E_GUEST_UNREACHABLE', 'no monitor', 'start it')),
      measureLink: () => Promise.reject(new WireError('E_CONNECT', 'nobody there')),
      ask: () => Promise.reject(new WireError('E_CONNECT', 'nobody there')),
    };
    const io = {
      stdout: new Writable(),
      stderr: new Writable(),
      env: { HOME: '/nonexistent' },
      signals: new EventEmitter(),
    };
    const context = { io, agents: NO_AGENTS, exit: () => {} };
    await expect(runPlan('qemu:/x', OPTIONS, context, parts)).rejects.toMatchObject({
      name: 'MigrationError',
      side: 'cli',
    });
    await expect(runPlan('qemu:/x', { ...OPTIONS, bandwidth: 1e9 }, context, parts)).rejects.toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      side: 'source',
      remedy: 'start it',
    });
  });

  it('is refused without a destination or a bandwidth, and for a guest that is not there', async () => {
    const nowhere = await vmferry('plan', 'qemu:/nowhere.sock', '--json');
    expect(nowhere.status).toBe(2);
    expect(nowhere.stderr).toMatch(/--to, or what the link carries with --bandwidth/);
    const absent = await vmferry('plan', 'qemu:/nowhere.sock', '--bandwidth', '1gbit');
    expect(absent.status).toBe(2);
    expect(absent.stderr).toMatch(/E_GUEST_UNREACHABLE/);
  });

  it.each([
    [['--streams', '0'], /--streams: /],
    [['--streams', '999'], /--streams: /],
    [['--max-downtime', '0ms'], /--max-downtime: /],
    [['--deadline', '0s', '--streams', '0'], /--deadline: .*; --streams: |--streams: .*; --deadline: /],
    [['--bandwidth', '0'], /--bandwidth: a link that carries nothing/],
  ])('refuses goals that a migration would refuse: %j', async (goals, message) => {
    const { status, stdout, stderr } = await vmferry(
      ...['plan', 'sim:idle', '--bandwidth', '1gbit', ...goals, '--json'],
    );
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(JSON.parse(stdout).error).toMatchObject({ code: 'E_USAGE', side: 'cli' });
  });

  it('measures a simulated guest, whose file says what it holds', async () => {
    const { status, stdout } = await vmferry('plan', 'sim:web', '--bandwidth', '1gbit', '--json');
    expect(status).toBe(0);
    const json = JSON.parse(stdout);
    expect(json.measured).toMatchObject({ kind: 'sim', memoryBytes: 2 ** 29 });
    expect(json.notes.join()).not.toMatch(/What memory holds/);
  });

  it('takes what memory holds from the guest where it is known', async () => {
    const zeroes = { zero: 1, text: 0, random: 0, duplicate: 0 };
    const { stdout } = await plan({ content: zeroes });
    expect(stdout).not.toMatch(/What memory holds is not known/);
    const wireBytes = async (content?: Figures['content']) => {
      const json = JSON.parse((await plan(content ? { content } : {}, { json: true })).stdout);
      return json.strategies[0].report.wireBytes as number;
    };
    expect(await wireBytes(zeroes)).toBeLessThan((await wireBytes()) / 3);
  });

  it('measures the link to a real agent, without a word of a guest', async () => {
    const log = createLogger({ level: 'silent', role: 'dest' });
    const agent = new DestAgent({ stateDir: '/nonexistent', insecure: false, log });
    const server = await serveAgent({
      operations: agent,
      listen: 'ws://127.0.0.1:0',
      insecure: false,
      log,
      acceptMigration: (socket, peer) => agent.acceptMigration(socket, peer),
    });
    try {
      const limits = { maxFrameBytes: 1 << 22, windowBytes: 1 << 24, bufferBytes: 1 << 26 };
      const options = { url: server.url, insecure: false, limits, maxBandwidth: 0 };
      const { roundTripMs, bytesPerSec: carried } = await measureLink(options);
      expect(roundTripMs).toBeLessThan(1000);
      // Loopback carries more than a hundred megabits.
      expect(carried).toBeGreaterThan(12_500_000);
      expect(agent.list().every(({ guest }) => guest === '')).toBe(true);
    } finally {
      await agent.close();
      await server.close();
    }
  });
});
