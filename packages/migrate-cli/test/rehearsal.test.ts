import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { createLogger } from '@vmferry/agent-core/log';
import { migrateRequestSchema } from '@vmferry/engine/options';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeOperations } from '../../agent-core/test/fake-operations.ts';
import { type AgentFactory, embeddedAgents } from '../src/embedded.ts';
import { connectOperator } from '../src/operator.ts';
import { Rehearsal } from '../src/rehearsal.ts';
import { NO_AGENTS, type Running, start } from './rig.ts';

let directory: string;
const outside = process.env['TMPDIR'];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  process.env['TMPDIR'] = directory;
});
afterEach(async () => {
  if (outside === undefined) delete process.env['TMPDIR'];
  else process.env['TMPDIR'] = outside;
  await rm(directory, { recursive: true });
});

/** Its log lines, and a wait for the first that says so. */
function logged() {
  const lines: { msg: string; level: string; moves?: number }[] = [];
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()));
      done();
    },
  });
  return { lines, log: createLogger({ level: 'info', role: 'dest', destination }) };
}

describe('a rehearsal', () => {
  it('moves its guest four times and leaves nothing behind', async () => {
    const { lines, log } = logged();
    await new Rehearsal({ agents: embeddedAgents, log }).run();
    expect(lines).toMatchObject([{ level: 'info', msg: 'rehearsed', moves: 4 }]);
    expect(await readdir(directory)).toEqual([]);
  });

  it('ends with what the agent rehearses by itself, whose failure is none of it', async () => {
    const { lines, log } = logged();
    let asked = 0;
    const own = async () => {
      asked += 1;
      throw new Error('libvirt does not answer');
    };
    await new Rehearsal({ agents: embeddedAgents, own, log }).run();
    expect(asked).toBe(1);
    expect(lines).toMatchObject([{ level: 'info', msg: 'rehearsed', moves: 4 }]);
  });

  it('does not wait for what the agent rehearses by itself once it is stopped', async () => {
    const { lines, log } = logged();
    const begun = signal();
    const own = () => {
      begun.resolve();
      return new Promise<void>(() => {});
    };
    const rehearsal = new Rehearsal({ agents: embeddedAgents, own, log });
    const over = rehearsal.run();
    await begun.promise;
    rehearsal.stop();
    await over;
    expect(lines).toMatchObject([{ level: 'info', msg: 'rehearsed', moves: 4 }]);
  });

  it('ends soon when it is stopped, which is no failure', async () => {
    const { lines, log } = logged();
    const begun = signal();
    const agents: AgentFactory = {
      ...embeddedAgents,
      async source(options, simulated) {
        const agent = await embeddedAgents.source(options, simulated);
        return {
          ...agent,
          migrate(request) {
            const running = agent.migrate(request);
            begun.resolve();
            return running;
          },
        };
      },
    };
    const rehearsal = new Rehearsal({ agents, log });
    const over = rehearsal.run();
    await begun.promise;
    rehearsal.stop();
    await over;
    expect(lines).toMatchObject([{ level: 'info', msg: 'rehearsed', moves: 0 }]);
    expect(await readdir(directory)).toEqual([]);
  });

  it('that fails is a warning, and the agent lives', async () => {
    const { lines, log } = logged();
    await new Rehearsal({ agents: NO_AGENTS, log }).run();
    expect(lines).toMatchObject([{ level: 'warn' }]);
    expect(await readdir(directory)).toEqual([]);
  });
});

describe('vmferry agent source', () => {
  let running: Running | undefined;
  afterEach(async () => {
    running?.signals.emit('SIGTERM');
    if (running) expect(await running.status).toBe(0);
    running = undefined;
  });

  it('rehearses until it has something to do', async () => {
    const rehearsing = signal();
    const served = new FakeOperations();
    running = start(['agent', 'source', '--listen', 'ws://127.0.0.1:0', '--state-dir', directory], {
      agents: {
        ...NO_AGENTS,
        source: (options, simulated) =>
          options.stateDir === directory
            ? Promise.resolve(embedded(served))
            : embeddedAgents.source(options, simulated),
        dest(options, simulated) {
          rehearsing.resolve();
          return embeddedAgents.dest(options, simulated);
        },
      },
    });
    await rehearsing.promise;
    const url = /ws:\/\/127\.0\.0\.1:\d+/.exec(running.stderr.text)![0];
    const operator = await connectOperator(url, { insecure: false });
    await operator.migrate(migrateRequestSchema.parse({ guest: 'sim:web', to: 'ws://127.0.0.1:1' }));
    served.migrations[0]?.finish();
    operator.close();
    await expect.poll(() => running?.stderr.text).toMatch(/"moves":[0-3],.*"rehearsed"/);
  });

  it.each([[['--no-rehearsal']], [['--config', 'agent.json']]])('does not with %j', async (how) => {
    const served = new FakeOperations();
    let asked = 0;
    const agents: AgentFactory = {
      ...NO_AGENTS,
      source: () => {
        asked += 1;
        return Promise.resolve(embedded(served));
      },
    };
    await writeFile(join(directory, 'agent.json'), '{"rehearse":false}');
    const args = how.map((arg) => (arg.endsWith('.json') ? join(directory, arg) : arg));
    running = start(['agent', 'source', '--listen', 'ws://127.0.0.1:0', '--state-dir', directory, ...args], {
      agents,
    });
    await expect.poll(() => running?.stderr.text).toContain('agent listens');
    running.signals.emit('SIGTERM');
    await running.status;
    expect(asked).toBe(1);
    expect(running.stderr.text).not.toContain('rehears');
  });
});

function signal(): { readonly promise: Promise<void>; resolve(): void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function embedded(operations: FakeOperations) {
  return {
    role: 'source' as const,
    migrate: operations.migrate.bind(operations),
    list: operations.list.bind(operations),
    find: operations.find.bind(operations),
    settle: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}
