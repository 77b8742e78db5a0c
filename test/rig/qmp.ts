import { connect, type Socket } from 'node:net';
import { within } from './process.ts';

export class QmpCommandError extends Error {
  readonly code = 'TEST_QMP_COMMAND_FAILED';
  constructor(
    readonly command: string,
    readonly qmpClass: string,
    description: string,
  ) {
    super(`${command}: ${description}`);
  }
}

export class QmpClosedError extends Error {
  readonly code = 'TEST_QMP_CLOSED';
}

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** QEMU's own stamp, in milliseconds since 1970. */
  readonly atMs: number;
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface WaitOptions {
  /** Default 30 s. */
  readonly timeoutMs?: number;
  /** Also look at events already received, from this position in `events`. */
  readonly from?: number;
}

/** The rig's own QMP client: the product's is what gets tested. Keeps every event. */
export class Qmp {
  readonly events: QmpEvent[] = [];
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #nextId = 1;
  #isClosed = false;
  #greeted: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    let held = '';
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      held += text;
      for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
        const line = held.slice(0, end).trim();
        held = held.slice(end + 1);
        if (line !== '') this.#receive(JSON.parse(line) as Record<string, unknown>);
      }
    });
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true;
        for (const { command, reject } of this.#pending.values()) {
          reject(new QmpClosedError(`${command}: the monitor closed`));
        }
        this.#pending.clear();
        resolve();
      });
    });
  }

  /** Waits for the greeting on a fresh connection and leaves negotiation mode. */
  static async open(socket: Socket): Promise<Qmp> {
    const qmp = new Qmp(socket);
    const greeting = new Promise<void>((resolve) => {
      qmp.#greeted = resolve;
    });
    await within(
      10_000,
      () => 'QMP greeting',
      Promise.race([
        greeting,
        qmp.closed.then(() => Promise.reject(new QmpClosedError('closed before the greeting'))),
      ]),
    );
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  static async connect(path: string): Promise<Qmp> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return Qmp.open(socket);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#isClosed) return Promise.reject(new QmpClosedError(`${command}: the monitor is closed`));
    const id = this.#nextId++;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { command, resolve, reject });
    });
    this.#socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
    return within(30_000, () => `QMP ${command}`, reply);
  }

  /** For commands whose answer is an object. */
  async query(
    command: string,
    args?: Readonly<Record<string, unknown>>,
  ): Promise<Readonly<Record<string, unknown>>> {
    return (await this.execute(command, args)) as Record<string, unknown>;
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first event that matches, from now on or from `options.from`. */
  async waitForEvent(matches: (event: QmpEvent) => boolean, options: WaitOptions = {}): Promise<QmpEvent> {
    const known = options.from === undefined ? undefined : this.events.slice(options.from).find(matches);
    if (known) return known;
    let unsubscribe = () => {};
    const found = new Promise<QmpEvent>((resolve) => {
      unsubscribe = this.onEvent((event) => {
        if (matches(event)) resolve(event);
      });
    });
    const closed = this.closed.then(() =>
      Promise.reject(new QmpClosedError('closed while waiting for an event')),
    );
    const what = () => `no such QMP event; seen ${this.events.map((e) => e.event).join(' ')}`;
    try {
      return await within(options.timeoutMs ?? 30_000, what, Promise.race([found, closed]));
    } finally {
      unsubscribe();
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(message: Record<string, unknown>): void {
    if ('QMP' in message) {
      this.#greeted();
      return;
    }
    if (typeof message['event'] === 'string') {
      const stamp = message['timestamp'] as { seconds: number; microseconds: number };
      const event: QmpEvent = {
        event: message['event'],
        data: (message['data'] ?? {}) as Record<string, unknown>,
        atMs: stamp.seconds * 1000 + stamp.microseconds / 1000,
      };
      this.events.push(event);
      for (const listener of this.#listeners) listener(event);
      return;
    }
    const pending = this.#pending.get(message['id'] as number);
    if (!pending) return;
    this.#pending.delete(message['id'] as number);
    const error = message['error'] as { class: string; desc: string } | undefined;
    if (error) pending.reject(new QmpCommandError(pending.command, error.class, error.desc));
    else pending.resolve(message['return']);
  }
}
