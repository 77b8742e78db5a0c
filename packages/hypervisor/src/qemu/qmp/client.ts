/**
 * A client of QEMU's machine protocol (QMP) over a UNIX socket.
 *
 *     connect ──▶ greeting ──▶ negotiating ──▶ open ──▶ closed
 *                    │              │                      ▲
 *                    └──────────────┴──────────────────────┘
 *
 * A monitor serves one client at a time and greets the next one when the first has gone. Once open, every
 * command carries an id and answers are matched by it, in whatever order they come; events arrive between
 * them. `closed` is final: every command that still waits is rejected with the reason.
 */
import type { Socket } from 'node:net';
import { CommandQueue, type QmpArguments } from './commands.ts';
import { QmpError } from './errors.ts';
import { LineSplitter } from './lines.ts';
import { type Greeting, parseGreeting, parseMessage, type QemuVersion, type QmpEvent } from './message.ts';
import { openSocket, taken } from './socket.ts';
import { after, inWords } from './timer.ts';

const MAX_LINE_BYTES = 64 * 1024 * 1024;

export type QmpListener = (event: QmpEvent) => void;

export interface ConnectOptions {
  /** Until the greeting was read and the capabilities are agreed. Milliseconds. */
  readonly greetingTimeoutMs?: number;
  /** For each command that names no other. Milliseconds; `Infinity` waits for ever. */
  readonly commandTimeoutMs?: number;
  /** The longest message that is taken. */
  readonly maxLineBytes?: number;
}

export interface ExecuteOptions {
  /** Overtakes commands that QEMU is busy with, where the monitor can (`client.oob`); otherwise in order. */
  readonly oob?: boolean;
  readonly timeoutMs?: number;
}

export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

type State =
  | { readonly phase: 'greeting'; readonly greeted: (greeting: Greeting) => void }
  | { readonly phase: 'open' }
  | { readonly phase: 'closed'; readonly error: QmpError };

export class QmpClient {
  readonly path: string;
  /** Resolves with the reason when the connection is over, also after `close`. Never rejects. */
  readonly closed: Promise<QmpError>;
  #version: QemuVersion = { major: 0, minor: 0, micro: 0, package: '' };
  #oob = false;
  #state: State = { phase: 'open' };
  #resolveClosed!: (error: QmpError) => void;
  readonly #socket: Socket;
  readonly #socketClosed: Promise<void>;
  readonly #splitter: LineSplitter;
  readonly #commandTimeoutMs: number;
  readonly #commands: CommandQueue;
  readonly #listeners = new Map<string, Set<QmpListener>>();

  /**
   * Takes the monitor at `path`.
   *
   * @throws QmpError with a code of its own for each reason.
   */
  static async connect(path: string, options: ConnectOptions = {}): Promise<QmpClient> {
    const { greetingTimeoutMs = 5000, commandTimeoutMs = 15_000, maxLineBytes = MAX_LINE_BYTES } = options;
    const client = new QmpClient(path, await openSocket(path), commandTimeoutMs, maxLineBytes);
    const timer = setTimeout(() => client.#fail(client.#noGreeting(greetingTimeoutMs)), greetingTimeoutMs);
    try {
      await client.#negotiate();
    } catch (error) {
      await client.close();
      // The reason itself, rather than that a command waited when it came.
      throw error instanceof QmpError && error.cause instanceof QmpError ? error.cause : error;
    } finally {
      clearTimeout(timer);
    }
    return client;
  }

  private constructor(path: string, socket: Socket, commandTimeoutMs: number, maxLineBytes: number) {
    this.path = path;
    this.#socket = socket;
    this.#commandTimeoutMs = commandTimeoutMs;
    this.#splitter = new LineSplitter(maxLineBytes);
    this.#commands = new CommandQueue((line) => socket.write(line));
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#socketClosed = new Promise((resolve) => {
      socket.once('close', () => resolve());
    });
    socket.on('error', (error) => this.#fail(this.#gone(error)));
    socket.once('end', () => this.#fail(this.#gone()));
    socket.once('close', () => this.#fail(this.#gone()));
  }

  get version(): QemuVersion {
    return this.#version;
  }

  /** Whether the monitor takes out-of-band commands. */
  get oob(): boolean {
    return this.#oob;
  }

  /**
   * Runs a command and resolves with what it returns. Numbers beyond 2^53 lose their last digits.
   *
   * Events that QEMU sends right behind the answer reach subscribers before the caller goes on: subscribe
   * first.
   *
   * @throws QmpError E_QMP_COMMAND if QEMU refuses, E_QMP_TIMEOUT, E_QMP_CLOSED.
   */
  execute(name: string, args?: QmpArguments, options: ExecuteOptions = {}): Promise<unknown> {
    if (this.#state.phase === 'closed') {
      return Promise.reject(closedBefore(this.#state.error, name));
    }
    const oob = options.oob === true && this.#oob;
    return this.#commands.run(name, args, oob, options.timeoutMs ?? this.#commandTimeoutMs);
  }

  /** Subscribes to an event by name, or to all with '*'. Returns what ends the subscription. */
  on(name: string, listener: QmpListener): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    // Wrapped, so that the same function subscribed twice is two subscriptions.
    const entry: QmpListener = (event) => listener(event);
    listeners.add(entry);
    return () => {
      listeners.delete(entry);
    };
  }

  /**
   * The next event of that name (from the moment of the call) that `predicate` takes.
   *
   * @throws QmpError E_QMP_TIMEOUT or E_QMP_CLOSED, or the signal's reason.
   */
  waitForEvent(
    name: string,
    predicate: (event: QmpEvent) => boolean = () => true,
    { timeoutMs = Number.POSITIVE_INFINITY, signal }: WaitOptions = {},
  ): Promise<QmpEvent> {
    if (this.#state.phase === 'closed')
      return Promise.reject(closedBefore(this.#state.error, `event ${name}`));
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        unsubscribe();
        stopTimer();
        signal?.removeEventListener('abort', aborted);
        act();
      };
      const aborted = (): void => settle(() => reject(signal?.reason));
      const stopTimer = after(timeoutMs, () =>
        settle(() => reject(new QmpError('E_QMP_TIMEOUT', `no ${name} event within ${inWords(timeoutMs)}`))),
      );
      const unsubscribe = this.on(name, (event) => {
        if (predicate(event)) settle(() => resolve(event));
      });
      signal?.addEventListener('abort', aborted, { once: true });
      this.closed.then((error) => settle(() => reject(closedBefore(error, `event ${name}`))));
    });
  }

  get isClosed(): boolean {
    return this.#state.phase === 'closed';
  }

  /** Lets go of the monitor; resolves when it is free for another client. */
  async close(): Promise<void> {
    this.#fail(new QmpError('E_QMP_CLOSED', `vmferry closed its connection to the monitor ${this.path}`));
    await this.#socketClosed;
  }

  async #negotiate(): Promise<void> {
    const greeting = await new Promise<Greeting>((greeted, reject) => {
      this.#state = { phase: 'greeting', greeted };
      this.closed.then(reject);
      // Only now: what has come meanwhile waits in the socket.
      this.#socket.on('data', (chunk) => this.#take(chunk));
    });
    this.#version = greeting.version;
    const oob = greeting.capabilities.includes('oob');
    await this.execute('qmp_capabilities', oob ? { enable: ['oob'] } : undefined);
    this.#oob = oob;
  }

  #take(chunk: Buffer): void {
    try {
      for (const line of this.#splitter.push(chunk)) {
        if (line !== '') this.#takeLine(line);
        if (this.#state.phase === 'closed') return;
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const message = `the monitor ${this.path} sent more than ${this.#splitter.limitBytes} bytes without an end of line`;
      this.#fail(new QmpError('E_QMP_TOO_LONG', message, {}, { cause: error }));
    }
  }

  #takeLine(line: string): void {
    if (this.#state.phase === 'greeting') {
      this.#takeGreeting(line, this.#state.greeted);
      return;
    }
    const message = parseMessage(line);
    if (!message) {
      this.#fail(protocol(`the monitor ${this.path} sent what is no QMP message: ${excerpt(line)}`));
    } else if (message.type === 'event') this.#tell(message.event);
    else if (!this.#commands.answer(message)) {
      this.#fail(protocol(`the monitor ${this.path} answered without saying which command`));
    }
  }

  #takeGreeting(line: string, greeted: (greeting: Greeting) => void): void {
    const greeting = parseGreeting(line);
    if (!greeting) {
      this.#fail(this.#notQmp(line));
      return;
    }
    this.#state = { phase: 'open' };
    greeted(greeting);
  }

  #tell(event: QmpEvent): void {
    const listeners = [...(this.#listeners.get(event.name) ?? []), ...(this.#listeners.get('*') ?? [])];
    try {
      for (const listener of listeners) listener(event);
    } catch (error) {
      // A migration whose bookkeeping missed an event must not go on as if nothing were.
      const text = `a subscriber to ${event.name} failed: ${String(error)}`;
      this.#fail(new QmpError('E_QMP_LISTENER', text, {}, { cause: error }));
    }
  }

  /** Ends everything, once; later reasons are consequences of the first. */
  #fail(error: QmpError): void {
    if (this.#state.phase === 'closed') return;
    this.#state = { phase: 'closed', error };
    this.#commands.abandon(error);
    this.#listeners.clear();
    this.#socket.destroy();
    this.#resolveClosed(error);
  }

  #gone(cause?: Error): QmpError {
    const when = this.#state.phase === 'greeting' ? ' before it greeted' : '';
    const why = cause ? `: ${cause.message}` : '';
    const text = `QEMU closed its monitor ${this.path}${when}${why}`;
    return new QmpError('E_QMP_CLOSED', text, {}, cause ? { cause } : undefined);
  }

  #noGreeting(timeoutMs: number): QmpError {
    if (this.#state.phase !== 'greeting') {
      const text = `QEMU greeted and did not agree on capabilities within ${inWords(timeoutMs)}`;
      return new QmpError('E_QMP_TIMEOUT', text, { command: 'qmp_capabilities' });
    }
    if (this.#splitter.partial) {
      return new QmpError('E_QMP_NOT_QMP', `${this.path} speaks, and not QMP: no greeting came`);
    }
    return taken(`no greeting within ${inWords(timeoutMs)}`);
  }

  #notQmp(line: string): QmpError {
    const human = line.startsWith('QEMU ') && line.includes('monitor');
    const what = human ? "is QEMU's human monitor (-monitor), not QMP (-qmp)" : 'does not speak QMP';
    return new QmpError('E_QMP_NOT_QMP', `${this.path} ${what}: it said ${excerpt(line)}`);
  }
}

function protocol(text: string): QmpError {
  return new QmpError('E_QMP_PROTOCOL', text);
}

function closedBefore(error: QmpError, what: string): QmpError {
  return new QmpError('E_QMP_CLOSED', `${what}: ${error.message}`, { command: what }, { cause: error });
}

function excerpt(line: string): string {
  return JSON.stringify(line.length > 80 ? `${line.slice(0, 80)}…` : line);
}
