import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Clock } from '../src/clock.ts';
import { WireError } from '../src/errors.ts';
import { Codec, type Frame, FrameKind, HEADER_BYTES, hashPayload, type OutgoingFrame } from '../src/frame.ts';
import type { FrameSocket } from '../src/frame-socket.ts';
import { Link, type LinkOptions } from '../src/link.ts';
import { Listener } from '../src/listener.ts';
import { connect, connectData, DATA_PATH, MIGRATION_PATH } from '../src/socket.ts';

/** A clock that stands still until it is advanced. */
export class ManualClock implements Clock {
  #now = 0;
  #timers: { at: number; action: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  after(ms: number, action: () => void): () => void {
    const timer = { at: this.#now + ms, action };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  advance(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#now = Math.max(this.#now, due.at);
      due.action();
    }
    this.#now = until;
  }
}

/** What `action` throws, which must be a `WireError`. */
export function wireErrorOf(action: () => unknown): WireError {
  try {
    action();
  } catch (error) {
    if (error instanceof WireError) return error;
    throw new Error(`not a WireError: ${String(error)}`, { cause: error });
  }
  throw new Error('nothing was thrown');
}

export async function wireErrorFrom(promise: Promise<unknown>): Promise<WireError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof WireError) return error;
    throw new Error(`not a WireError: ${String(error)}`, { cause: error });
  }
  throw new Error('nothing was thrown');
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

export function deferred<T = void>(): Deferred<T> {
  let settle: ((value: T) => void) | undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return { promise, resolve: (value) => settle?.(value) };
}

/** Two ends of one WebSocket over loopback. */
export interface SocketPair {
  readonly client: WebSocket;
  readonly server: WebSocket;
  close(): Promise<void>;
}

export async function socketPair(): Promise<SocketPair> {
  const accepted = deferred<WebSocket>();
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: { [MIGRATION_PATH]: accepted.resolve },
  });
  const client = await connect(listener.url, { path: MIGRATION_PATH });
  return { client, server: await accepted.promise, close: () => listener.close() };
}

/** What carries a link's messages. */
export const transports = ['ws', 'lane'] as const;
export type Transport = (typeof transports)[number];

/** Two ends of one connection over loopback, both on lanes. */
export async function lanePair(): Promise<{
  readonly client: FrameSocket;
  readonly server: FrameSocket;
  close(): Promise<void>;
}> {
  const accepted = deferred<FrameSocket>();
  const listener = await Listener.listen('ws://127.0.0.1:0', { handlers: { [DATA_PATH]: accepted.resolve } });
  const client = await connectData(listener.url, {});
  return { client, server: await accepted.promise, close: () => listener.close() };
}

export interface LinkPair {
  readonly near: Link;
  readonly far: Link;
  close(): Promise<void>;
}

export async function linkPair(
  near: Partial<LinkOptions> = {},
  far: Partial<LinkOptions> = {},
  transport: Transport = 'ws',
): Promise<LinkPair> {
  const sockets = await (transport === 'ws' ? socketPair() : lanePair());
  const consume: LinkOptions['onFrame'] = (frame, link) => link.consumed(frame);
  return {
    near: new Link(sockets.client, { name: 'near', onFrame: consume, ...near }),
    far: new Link(sockets.server, { name: 'far', onFrame: consume, ...far }),
    close: () => sockets.close(),
  };
}

/** A server of plain `ws`, to play a peer that does not keep to the rules. */
export async function rawServer(): Promise<{
  url: string;
  next: Promise<WebSocket>;
  close(): Promise<void>;
}> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  const next = new Promise<WebSocket>((resolve) => server.once('connection', resolve));
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    next,
    close: () => {
      for (const client of server.clients) client.terminate();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

export function pagesFrame(payloadBytes: number, more: Partial<OutgoingFrame> = {}): OutgoingFrame {
  const buffer = Buffer.alloc(HEADER_BYTES + payloadBytes, 7);
  return {
    kind: FrameKind.pages,
    flags: 0,
    codec: Codec.none,
    epoch: 0,
    round: 1,
    block: 0,
    count: 1,
    rawBytes: payloadBytes,
    payloadHash: hashPayload(buffer.subarray(HEADER_BYTES)),
    buffer,
    ...more,
  };
}

/** Collects frames and lets a test wait for the n-th. */
export class Inbox {
  readonly frames: Frame[] = [];
  #waiting: { count: number; resolve: () => void }[] = [];

  readonly onFrame = (frame: Frame): void => {
    this.frames.push(frame);
    for (const { resolve } of this.#waiting.filter(({ count }) => count <= this.frames.length)) resolve();
    this.#waiting = this.#waiting.filter(({ count }) => count > this.frames.length);
  };

  has(count: number): Promise<void> {
    if (this.frames.length >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }
}
