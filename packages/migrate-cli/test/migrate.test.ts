import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import type { ErrorReport } from '@vmferry/engine/errors';
import { MigrationError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import { connect, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeOperations } from '../../agent-core/test/fake-operations.ts';
import type { AgentFactory } from '../src/embedded.ts';
import { NO_AGENTS, serveFake, start, vmferry } from './rig.ts';

type Agent = Awaited<ReturnType<typeof serveFake>>;

const TO = 'ws://127.0.0.1:1';
const fault: ErrorReport = {
  code: 'E_STALLED',
  message: 'the guest writes faster than the link carries',
  side: 'source',
  phase: 'precopy',
  guestRunsOn: 'source',
  remedy: 'Allow post-copy.',
};
const progress = (round: number): MigrationEvent => ({
  type: 'progress',
  phase: 'precopy',
  round,
  elapsedMs: 100,
  totalBytes: 1024 ** 3,
  remainingBytes: 1024 ** 3 / 4,
  dirtyBytesPerSec: 18e6,
  bandwidthBytesPerSec: 118e6,
  expectedDowntimeMs: 245,
  rawBytes: 0,
  wireBytes: 0,
  faults: 3,
});

let dir: string;
let agent: Agent;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-cli-'));
  agent = await serveFake();
});
afterEach(async () => {
  await agent.close();
  await rm(dir, { recursive: true, force: true });
});

const args = (...more: string[]) => ['migrate', 'sim:web1', '--from', agent.url, '--to', TO, ...more];
/** Standard output must be one object and a line break, and nothing else. */
function onlyObject(stdout: string): Record<string, unknown> {
  expect(stdout.match(/\n/g)).toHaveLength(1);
  expect(stdout.endsWith('\n')).toBe(true);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe('vmferry migrate', () => {
  it.each([
    ['completed', 0],
    ['failed', 1],
    ['refused', 2],
    ['attention', 3],
    ['cancelled', 130],
  ] as const)('ends %s with status %d and one object on standard output', async (outcome, status) => {
    const error = outcome === 'completed' ? null : fault;
    agent.fake.script = (migration) => {
      migration.publish(progress(1), { type: 'decision', what: 'switch over', why: 'it fits' });
      migration.finish({ outcome, error });
    };
    const ended = await vmferry(...args('--json'));
    expect(ended.status).toBe(status);
    expect(onlyObject(ended.stdout)).toMatchObject({ schema: 1, outcome, guest: 'sim:web1', error });
    expect(ended.stderr).toBe('');
  });

  it('asks for what the options say, in milliseconds and bytes per second', async () => {
    agent.fake.script = (migration) => void migration.finish();
    const options = '--strategy hybrid --max-downtime 1.5s --deadline 10m --max-bandwidth 1gbit --streams 4';
    const more = '--compress lz4 --on-stall postcopy --announce-ip 192.0.2.1 --announce-ip 2001:db8::1';
    const rest = '--guest-agent /run/ga.sock --keep-source --insecure --dest-guest sim:web2';
    expect((await vmferry(...args(...`${options} ${more} ${rest}`.split(' ')))).status).toBe(0);
    expect(agent.fake.migrations[0]?.request).toEqual({
      guest: 'sim:web1',
      to: TO,
      destGuest: 'sim:web2',
      strategy: 'hybrid',
      maxDowntimeMs: 1500,
      deadlineMs: 600_000,
      maxBandwidth: 125_000_000,
      streams: 4,
      compress: 'lz4',
      onStall: 'postcopy',
      announceIps: ['192.0.2.1', '2001:db8::1'],
      guestAgent: '/run/ga.sock',
      destroySource: false,
      insecure: true,
    });
  });

  it('ends the source’s hypervisor unless told otherwise', async () => {
    agent.fake.script = (migration) => void migration.finish();
    await vmferry(...args());
    expect(agent.fake.migrations[0]?.request).toMatchObject({ destroySource: true, maxDowntimeMs: 300 });
  });

  it('tells people the figures on standard output, and the error on standard error', async () => {
    agent.fake.script = (migration) => {
      migration.finish({ outcome: 'failed', error: fault, downtimeMs: 245, downtimeUncertaintyMs: 0.4 });
    };
    const { stdout, stderr } = await vmferry(...args());
    expect(stdout).toMatch(/^outcome +failed\n/);
    expect(stdout).toMatch(/downtime +245 ms ± 0\.4 ms/);
    expect(stderr).toContain('error: the guest writes faster than the link carries (E_STALLED)');
    expect(stderr).toContain('where  source agent, pre-copy');
    expect(stderr).toContain('guest  the guest runs on the source');
    expect(stderr).toContain('remedy Allow post-copy.');
  });

  it('writes plain lines without a terminal: all decisions, and progress once a second', async () => {
    agent.fake.script = (migration) => {
      for (let round = 1; round <= 20; round++) migration.publish(progress(round));
      migration.publish({ type: 'decision', what: 'switch over', why: '\x1b[31mit fits' });
      migration.finish();
    };
    const { stderr } = await vmferry(...args());
    expect(stderr).toContain(`moving sim:web1 to ${TO} (migration m1)`);
    expect(stderr.match(/remaining/g)).toHaveLength(1);
    expect(stderr).toContain('256 MiB remaining, dirty rate 18.0 MB/s, bandwidth 118 MB/s');
    expect(stderr).toContain('switch over:  [31mit fits');
    expect(stderr).not.toContain('\x1b');
  });

  it('says that a downtime is not known, and how far the disks are', async () => {
    agent.fake.script = (migration) => {
      const disks = { copiedBytes: 1024 ** 2, totalBytes: 1024 ** 3 };
      migration.publish({ ...progress(1), expectedDowntimeMs: null, disks } as MigrationEvent);
      migration.finish();
    };
    const { stderr } = await vmferry(...args());
    expect(stderr).toContain('expected downtime not known, 3 faults, disks 1.00 MiB of 1.00 GiB');
  });

  it('tells no downtime to come of a guest that has moved', async () => {
    agent.fake.script = (migration) => {
      migration.publish({ ...progress(1), phase: 'postcopy' } as MigrationEvent);
      migration.finish();
    };
    const { stderr } = await vmferry(...args());
    expect(stderr).toContain('118 MB/s, 3 faults');
  });

  it('shows one block in a terminal, and takes it away at the end', async () => {
    agent.fake.script = (migration) => {
      migration.publish(progress(2), { type: 'phase', phase: 'switchover' });
      migration.finish();
    };
    const running = start(args(), { tty: true });
    expect(await running.status).toBe(0);
    const { text } = running.stderr;
    expect(text).toContain('████');
    expect(text).toContain('switchover');
    expect(text.endsWith('\x1b[J')).toBe(true);
    for (const line of text.split('\n')) expect(stripVTControlCharacters(line).length).toBeLessThan(80);
  });

  it('writes every event to a file, with its time', async () => {
    const before = Date.now();
    agent.fake.script = (migration) => {
      migration.publish({ type: 'note', text: 'a' }, { type: 'phase', phase: 'precopy' });
      migration.finish();
    };
    const file = join(dir, 'events.ndjson');
    const { stdout } = await vmferry(...args('--events', file, '--json'));
    onlyObject(stdout);
    const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
    const events = lines.map((line) => JSON.parse(line) as { type: string; at: number });
    expect(events.map(({ type }) => type)).toEqual(['note', 'phase', 'finished']);
    for (const { at } of events) {
      expect(at).toBeGreaterThanOrEqual(before);
      expect(at).toBeLessThanOrEqual(Date.now());
    }
  });

  it('writes events to standard output when asked, and what people read elsewhere', async () => {
    agent.fake.script = (migration) => void migration.finish();
    const { stdout, stderr } = await vmferry(...args('--events', '-'));
    expect(onlyObject(stdout)).toMatchObject({ type: 'finished' });
    expect(stderr).toContain('outcome');
  });

  it('cancels when its terminal is closed', async () => {
    const running = start(args());
    await expect.poll(() => agent.fake.migrations[0]?.hub.observers).toBe(1);
    const migration = agent.fake.migrations[0]!;
    running.signals.emit('SIGHUP');
    await expect.poll(() => migration.cancelled).toBe(1);
    migration.finish({ outcome: 'cancelled', error: { ...fault, code: 'E_CANCELLED' } });
    expect(await running.status).toBe(130);
  });

  it('cancels at the first interrupt, and says at the second that it is at it', async () => {
    const running = start(args('--json'));
    await expect.poll(() => agent.fake.migrations[0]?.hub.observers).toBe(1);
    const migration = agent.fake.migrations[0]!;
    running.signals.emit('SIGINT');
    await expect.poll(() => migration.cancelled).toBe(1);
    running.signals.emit('SIGTERM');
    await expect.poll(() => running.stderr.text).toContain('still cancelling');
    migration.finish({ outcome: 'cancelled', error: { ...fault, code: 'E_CANCELLED' } });
    expect(await running.status).toBe(130);
    expect(migration.cancelled).toBe(1);
    expect(onlyObject(running.stdout.text)).toMatchObject({ outcome: 'cancelled' });
    expect(running.signals.listenerCount('SIGINT')).toBe(0);
  });

  it('says that the migration goes on when the agent’s connection is lost', async () => {
    const running = start(args('--json'));
    await expect.poll(() => agent.fake.migrations[0]?.hub.observers).toBe(1);
    await agent.close();
    expect(await running.status).toBe(3);
    expect(onlyObject(running.stdout.text)).toMatchObject({
      outcome: 'attention',
      error: {
        code: 'E_LINK_LOST',
        side: 'cli',
        guestRunsOn: 'unknown',
        message: expect.stringContaining('the migration goes on there'),
        remedy: `See what becomes of it with \`vmferry watch m1 --agent ${agent.url}\`.`,
      },
    });
    expect(agent.fake.migrations[0]?.cancelled).toBe(0);
  });

  it('passes on the agent’s refusal', async () => {
    agent.fake.migrate = () => {
      throw new MigrationError('it is being moved already', { ...fault, code: 'E_GUEST_BUSY' });
    };
    const { status, stdout } = await vmferry(...args('--json'));
    expect(status).toBe(2);
    expect(onlyObject(stdout)).toMatchObject({
      outcome: 'refused',
      guest: 'sim:web1',
      error: { code: 'E_GUEST_BUSY', side: 'source' },
    });
  });

  it('refuses when no agent is there', async () => {
    await agent.close();
    const { status, stdout, stderr } = await vmferry(...args('--json'));
    expect(status).toBe(2);
    expect(onlyObject(stdout)).toMatchObject({
      outcome: 'refused',
      error: { code: 'E_CONNECT', side: 'cli' },
    });
    expect(stderr).toContain('nothing listens there');
  });

  it.each([
    [['migrate'], /missing required argument 'guest'/],
    [['migrate', 'sim:idle', '--from', TO], /--from without --to/],
    [['migrate', 'qemu:/run/vm/web1.sock'], /would move to itself: .*--dest-guest/],
    [['migrate', 'web1', '--to', TO], /GUEST: a guest is qemu:/],
    [['migrate', 'sim:idle', '--to', 'host2'], /--to.*no agent's URL.*wss:\/\/host2:4447/s],
    [['migrate', 'sim:idle', '--to', TO, '--max-downtime', '300'], /--max-downtime.*300ms, 2s, 10m or 1h/s],
    [['migrate', 'sim:idle', '--to', TO, '--max-bandwidth', 'fast'], /--max-bandwidth.*1gbit/s],
    [['migrate', 'sim:idle', '--to', TO, '--streams', '99'], /--streams: /],
    [['migrate', 'sim:idle', '--to', TO, '--streams', 'x'], /--streams.*whole number/s],
    [['migrate', 'sim:idle', '--to', TO, '--announce-ip', 'x'], /--announce-ip: /],
    [
      ['migrate', 'sim:idle', '--to', TO, '--announce-ip', '127.0.0.1'],
      /--announce-ip: .* a loopback address/,
    ],
    [
      ['migrate', 'sim:idle', '--to', TO, '--announce-ip', '224.0.0.1'],
      /--announce-ip: .* a multicast address/,
    ],
    [
      ['migrate', 'sim:idle', '--to', TO, '--announce-ip', '01:00:5e:00:00:01=10.0.0.2'],
      /--announce-ip: The MAC/,
    ],
    [
      ['migrate', 'sim:idle', '--to', TO, '--strategy', 'fast'],
      /--strategy.*auto, precopy, postcopy, hybrid/s,
    ],
    [['migrate', 'sim:idle', '--to', TO, '--events', '-'], /both want standard output/],
    [['migrate', 'sim:idle', '--to', TO, '--events', '/nonexistent/x'], /cannot write events/],
    [['migrate', 'sim:idle', '--to', TO, '--config', '/nonexistent/x'], /there is no such file/],
    [
      ['migrate', 'sim:idle', '--to', TO, '--cert', '/nonexistent/x'],
      /a certificate without its private key/,
    ],
    [['migrate', 'sim:idle', 'sim:b'], /too many arguments/],
    [['migrate', 'sim:idle', '--to', TO, '--junit', '/nonexistent/x'], /cannot write the JUnit report/],
    [['migrate', 'sim:nobody'], /the library has no guest "nobody"; it has idle, web, .*, or a guest file/s],
    [['migrate', 'sim:./nobody.yaml'], /cannot read the guest file .*nobody\.yaml: there is no such file/],
    [['migrate', 'sim:./a.yaml', '--from', TO, '--to', TO], /give it to the agent with --simulate/],
    [['migrat'], /unknown command/],
    [['--nope'], /unknown option/],
  ] as const)('refuses %j with status 2, and with --json with a report', async (line, message) => {
    const people = await vmferry(...(line as readonly string[]).filter((word) => word !== '--json'));
    if (!line.includes('-' as never)) {
      expect(people.status).toBe(2);
      expect(people.stdout).toBe('');
      expect(people.stderr).toMatch(message);
    }
    const program = await vmferry(...line, '--json');
    expect(program.status).toBe(2);
    const report = onlyObject(program.stdout) as { outcome: string; error: ErrorReport };
    expect(report.outcome).toBe('refused');
    expect(report.error).toMatchObject({ side: 'cli', guestRunsOn: 'source' });
  });

  it('tells a refusal in the JUnit report, too', async () => {
    const file = join(dir, 'junit.xml');
    expect((await vmferry('migrate', 'sim:nobody', '--junit', file)).status).toBe(2);
    expect(await readFile(file, 'utf8')).toMatch(/<error type="E_CONFIG" message="the library has no guest/);
  });

  it.each([
    [2, 'E_CONNECT', ['sim:web1', '--from', TO, '--to', TO]],
    [2, 'E_USAGE', ['sim:web1', '--from', TO]],
    [2, 'E_USAGE', ['sim:web1', '--streams', '99']],
    [2, 'E_INTERNAL', ['sim:web', '--state-dir', '/nonexistent']],
  ] as const)(
    'has status %d and %s in the JUnit report of a migration that was not begun: %j',
    async (status, code, line) => {
      const file = join(dir, 'junit.xml');
      expect((await vmferry('migrate', ...line, '--junit', file)).status).toBe(status);
      const text = await readFile(file, 'utf8');
      expect(text).toContain(`<error type="${code}" `);
      expect(text).toContain(`name="${line[0]} by auto"`);
    },
  );

  it('names an unknown key of the configuration', async () => {
    await writeFile(join(dir, 'a.yaml'), 'tls:\n  crt: x\n');
    const { status, stderr } = await vmferry(...args('--config', join(dir, 'a.yaml')));
    expect(status).toBe(2);
    expect(stderr).toMatch(/a\.yaml: unknown key tls\.crt \(line 2\)/);
  });

  it('shows examples in its help', async () => {
    const { status, stdout } = await vmferry('migrate', '--help');
    expect(status).toBe(0);
    expect(stdout).toContain('vmferry migrate qemu:/run/vm/web1.sock --to wss://host2:4447');
  });
});

describe('vmferry migrate with agents inside', () => {
  class Embedded {
    readonly source = new FakeOperations();
    readonly dest = new FakeOperations('dest');
    sourceOptions: SourceAgentOptions | undefined;
    destOptions: DestAgentOptions | undefined;
    accepted = 0;
    readonly closed: string[] = [];
    /** Whose leftovers were to be settled. */
    readonly settled: string[] = [];
    /** The simulated guests that the agents were given. */
    readonly simulated: string[] = [];
    readonly factory: AgentFactory = {
      ...NO_AGENTS,
      source: async (options, simulated) => {
        this.sourceOptions = options;
        this.simulated.push(...simulated.map(({ file }) => `source ${file.name} ${file.memory}`));
        return Object.assign(this.source, {
          close: async () => void this.closed.push('source'),
          settle: async (guest?: string) => void this.settled.push(`source ${guest}`),
        });
      },
      dest: async (options, simulated) => {
        this.destOptions = options;
        this.simulated.push(...simulated.map(({ file }) => `dest ${file.name} ${file.memory}`));
        return Object.assign(this.dest, {
          close: async () => void this.closed.push('dest'),
          settle: async (guest?: string) => void this.settled.push(`dest ${guest}`),
          acceptMigration: () => void this.accepted++,
          abandon: () => {},
        });
      },
    };
  }

  it('runs the source with --to alone', async () => {
    const agents = new Embedded();
    agents.source.script = (migration) => void migration.finish();
    const line = ['migrate', 'sim:idle', '--to', 'wss://host2:4447', '--state-dir', dir, '--json'];
    const running = start(line, { agents: agents.factory });
    expect(await running.status).toBe(0);
    expect(onlyObject(running.stdout.text)).toMatchObject({ outcome: 'completed' });
    expect(agents.sourceOptions).toMatchObject({ stateDir: dir, insecure: false });
    expect(agents.source.migrations[0]?.request.to).toBe('wss://host2:4447');
    expect(agents.destOptions).toBeUndefined();
    expect(agents.settled).toEqual(['source sim:idle']);
    expect(agents.closed).toEqual(['source']);
  });

  it('runs both without, the destination on loopback behind a token', async () => {
    const agents = new Embedded();
    agents.source.script = async (migration) => {
      const socket = await connect(migration.request.to, { path: MIGRATION_PATH });
      await expect.poll(() => agents.accepted).toBe(1);
      socket.close();
      migration.finish({ outcome: 'failed', error: fault });
    };
    const running = start(['migrate', 'sim:idle', '--state-dir', dir, '--json'], { agents: agents.factory });
    expect(await running.status).toBe(1);
    expect(agents.source.migrations[0]?.request.to).toMatch(/^ws:\/\/127\.0\.0\.1:\d+$/);
    expect(agents.destOptions?.token).toMatch(/^[0-9a-f]{64}$/);
    expect(agents.sourceOptions?.token).toBe(agents.destOptions?.token);
    expect(agents.closed).toEqual(['source', 'dest']);
  });

  it('gives both the simulated guest of a file, and calls it by its name', async () => {
    const agents = new Embedded();
    agents.source.script = (migration) => void migration.finish();
    await writeFile(join(dir, 'small.yaml'), 'name: tiny\nmemory: 1MiB\n');
    await writeFile(join(dir, 'vmferry.yaml'), 'simulate: [./small.yaml, web]\n');
    const line = ['migrate', `sim:${join(dir, 'small.yaml')}`, '--state-dir', dir, '--json'];
    expect(await start(line, { agents: agents.factory }).status).toBe(0);
    expect(agents.source.migrations[0]?.request.guest).toBe('sim:tiny');
    expect(agents.simulated).toEqual(['dest tiny 1048576', 'source tiny 1048576']);
    const configured = [
      'migrate',
      'sim:idle',
      '--config',
      join(dir, 'vmferry.yaml'),
      '--to',
      'wss://host2:4447',
    ];
    agents.simulated.length = 0;
    expect(await start(configured, { agents: agents.factory }).status).toBe(0);
    expect(agents.simulated).toEqual([
      'source tiny 1048576',
      'source web 536870912',
      'source idle 268435456',
    ]);
  });

  it('ends as cancelled when it is interrupted before it began', async () => {
    const never: AgentFactory = {
      ...NO_AGENTS,
      source: () => new Promise(() => {}),
      dest: () => new Promise(() => {}),
    };
    const running = start(['migrate', 'sim:idle', '--to', TO, '--json'], { agents: never });
    await expect.poll(() => running.signals.listenerCount('SIGINT')).toBe(1);
    running.signals.emit('SIGINT');
    expect(await running.status).toBe(130);
    expect(onlyObject(running.stdout.text)).toMatchObject({ outcome: 'cancelled', error: null });
  });

  it('does not wait for a simulated guest that cannot be cancelled any more: it ends with the command', async () => {
    const agents = new Embedded();
    const file = join(dir, 'junit.xml');
    const line = ['migrate', 'sim:idle', '--state-dir', dir, '--json', '--junit', file];
    const running = start(line, { agents: agents.factory });
    await expect.poll(() => agents.source.migrations[0]?.hub.observers).toBe(1);
    running.signals.emit('SIGTERM');
    await expect.poll(() => agents.source.migrations[0]?.cancelled).toBe(1);
    expect(await running.status).toBe(130);
    expect(onlyObject(running.stdout.text)).toMatchObject({
      outcome: 'cancelled',
      error: { code: 'E_CANCELLED', guestRunsOn: 'neither' },
    });
    expect(await readFile(file, 'utf8')).toContain('<error type="E_CANCELLED" ');
  });

  it('waits for a guest of an agent elsewhere, however long it takes', async () => {
    const agents = new Embedded();
    const line = ['migrate', 'sim:idle', '--to', 'wss://host2:4447', '--state-dir', dir, '--json'];
    const running = start(line, { agents: agents.factory });
    await expect.poll(() => agents.source.migrations[0]?.hub.observers).toBe(1);
    running.signals.emit('SIGTERM');
    await expect.poll(() => agents.source.migrations[0]?.cancelled).toBe(1);
    const later = new Promise((resolve) => setTimeout(resolve, 2500, 'still there'));
    expect(await Promise.race([running.status, later])).toBe('still there');
    agents.source.migrations[0]!.finish();
    expect(await running.status).toBe(0);
  });
});
