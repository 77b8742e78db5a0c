/** Runs the command in this process, against agents that do what the test says. */
import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { createLogger } from '@vmferry/agent-core/log';
import { type AgentServer, serveAgent } from '@vmferry/agent-core/serve';
import { FakeOperations } from '../../agent-core/test/fake-operations.ts';
import type { AgentFactory } from '../src/embedded.ts';
import { run } from '../src/run.ts';

class Captured extends Writable {
  text = '';
  readonly isTTY: boolean;
  readonly columns = 80;

  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

export interface Running {
  readonly stdout: Captured;
  readonly stderr: Captured;
  readonly signals: EventEmitter;
  readonly status: Promise<number>;
}

export const NO_AGENTS: AgentFactory = {
  source: () => Promise.reject(new Error('no embedded source was expected')),
  dest: () => Promise.reject(new Error('no embedded destination was expected')),
  host: () => Promise.reject(new Error('no agent of both roles was expected')),
};

export function start(
  args: readonly string[],
  options: { tty?: boolean; agents?: AgentFactory } = {},
): Running {
  const stdout = new Captured(false);
  const stderr = new Captured(options.tty ?? false);
  const signals = new EventEmitter();
  const io = { stdout, stderr, env: { HOME: '/nonexistent' }, signals };
  return { stdout, stderr, signals, status: run(args, io, options.agents ?? NO_AGENTS) };
}

export async function vmferry(
  ...args: readonly string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  const running = start(args);
  const status = await running.status;
  return { status, stdout: running.stdout.text, stderr: running.stderr.text };
}

/** A source agent behind a real socket. */
export async function serveFake(token?: string): Promise<AgentServer & { fake: FakeOperations }> {
  const fake = new FakeOperations();
  const server = await serveAgent({
    operations: fake,
    listen: 'ws://127.0.0.1:0',
    insecure: false,
    log: createLogger({ level: 'silent', role: 'source' }),
    ...(token === undefined ? {} : { token }),
  });
  return { ...server, fake };
}
