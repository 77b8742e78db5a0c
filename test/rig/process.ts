import { type ChildProcessByStdio, spawn as nodeSpawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import type { Readable, Writable } from 'node:stream';

export class CommandError extends Error {
  readonly code = 'TEST_COMMAND_FAILED';
  constructor(
    readonly argv: readonly string[],
    readonly status: string,
    readonly stderr: string,
  ) {
    super(`${argv.join(' ')}: ${status}${stderr === '' ? '' : `\n${stderr.trimEnd()}`}`);
  }
}

export class TimeoutError extends Error {
  readonly code = 'TEST_TIMEOUT';
}

/** Rejects with `what` after `ms` unless the promise settles before. */
export function within<T>(ms: number, what: () => string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TimeoutError(`${what()} (waited ${ms} ms)`)), ms);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface LaunchOptions {
  /** Name of a network namespace. */
  readonly namespace?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** A file that gets standard error. */
  readonly log?: string;
  /** Added to the niceness. */
  readonly nice?: number;
}

/**
 * A child process that dies with its parent, however the parent ends, so that a killed test run leaves no
 * QEMU behind. `pid` is the command's own: the wrappers exec.
 */
export class ManagedProcess {
  readonly argv: readonly string[];
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly exited: Promise<ExitStatus>;
  #status: ExitStatus | undefined;
  #stderr = '';

  constructor(argv: readonly string[], options: LaunchOptions = {}) {
    this.argv = argv;
    const wrapped = [
      ...(options.nice === undefined ? [] : ['nice', '-n', String(options.nice)]),
      ...(options.namespace === undefined ? [] : ['ip', 'netns', 'exec', options.namespace]),
      ...['setpriv', '--pdeathsig', 'KILL', '--'],
      ...argv,
    ];
    this.child = nodeSpawn(wrapped[0] as string, wrapped.slice(1), {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const log = options.log === undefined ? undefined : createWriteStream(options.log, { flags: 'a' });
    this.child.stderr.on('data', (data: Buffer) => {
      this.#stderr = (this.#stderr + data.toString('utf8')).slice(-65_536);
      log?.write(data);
    });
    // A process that is gone before it read its input is reported by its exit status.
    this.child.stdin.on('error', () => {});
    this.exited = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        this.#status = { code, signal };
        log?.end();
        resolve(this.#status);
      });
    });
    this.exited.catch(() => {});
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new CommandError(this.argv, 'did not start', '');
    return this.child.pid;
  }

  /** The exit status, or undefined while it runs. */
  get status(): ExitStatus | undefined {
    return this.#status;
  }

  /** The last 64 KiB of standard error. */
  get stderr(): string {
    return this.#stderr;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.#status === undefined) this.child.kill(signal);
  }

  /** SIGTERM, after `graceMs` SIGKILL; resolves when it is gone. */
  async stop(graceMs = 2000): Promise<ExitStatus> {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions extends LaunchOptions {
  readonly input?: string;
  /** Default 60 s. */
  readonly timeoutMs?: number;
}

/** Runs a command to its end; throws CommandError unless it exits with 0. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
  const process = new ManagedProcess(argv, options);
  const chunks: Buffer[] = [];
  process.child.stdout.on('data', (data: Buffer) => chunks.push(data));
  process.child.stdin.end(options.input ?? '');
  try {
    const status = await within(options.timeoutMs ?? 60_000, () => argv.join(' '), process.exited);
    if (status.code !== 0) {
      throw new CommandError(argv, `exit ${status.code ?? status.signal}`, process.stderr);
    }
  } finally {
    process.kill();
  }
  return { stdout: Buffer.concat(chunks).toString('utf8'), stderr: process.stderr };
}
