import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { type Frame, HEADER_BYTES, hashPayload, verifyPayload } from '../src/frame.ts';
import type { FrameSocket } from '../src/frame-socket.ts';
import { LaneSocket } from '../src/lane-socket.ts';
import { Link } from '../src/link.ts';
import { Listener, type ListenerOptions } from '../src/listener.ts';
import { connect, connectData, DATA_PATH } from '../src/socket.ts';
import {
  deferred,
  Inbox,
  lanePair,
  linkPair,
  ManualClock,
  pagesFrame,
  rawServer,
  wireErrorFrom,
} from './support.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function listen(url = 'ws://127.0.0.1:0', options: Partial<ListenerOptions> = {}) {
  const streams: FrameSocket[] = [];
  const listener = await Listener.listen(url, {
    handlers: { [DATA_PATH]: (socket) => streams.push(socket) },
    ...options,
  });
  cleanups.push(() => listener.close());
  return { listener, url: listener.url, streams };
}

/** The messages of a socket, copied and given back, until the test has enough. */
function collect(socket: FrameSocket, count: number): Promise<Buffer[]> {
  const all = deferred<Buffer[]>();
  const messages: Buffer[] = [];
  if (count === 0) all.resolve([]);
  socket.on('message', (data) => {
    messages.push(Buffer.from(data as Buffer));
    socket.recycle?.(data as Buffer);
    if (messages.length === count) all.resolve(messages);
  });
  return all.promise;
}

const send = (socket: FrameSocket, bytes: Uint8Array) =>
  new Promise<void>((resolve, reject) =>
    socket.send(bytes, { binary: true, compress: false }, (error) => (error ? reject(error) : resolve())),
  );

const closeOf = (socket: FrameSocket) =>
  new Promise<{ code: number; reason: string }>((resolve) =>
    socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })),
  );

describe('a data stream', () => {
  test('is on lanes on both sides, over TCP and over Unix sockets', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'vmferry-lane-'));
    cleanups.push(() => rmSync(dir, { recursive: true }));
    for (const address of ['ws://127.0.0.1:0', 'ws://[::1]:0', `ws+unix:${dir}/agent.sock`]) {
      const { url, streams } = await listen(address);
      const client = await connectData(url, {});
      expect([client, streams[0]]).toEqual([expect.any(LaneSocket), expect.any(LaneSocket)]);
      const [there, back] = [collect(streams[0]!, 1), collect(client, 1)];
      await Promise.all([send(client, Buffer.from('there')), send(streams[0]!, Buffer.from('back'))]);
      expect([...(await there), ...(await back)].map(String)).toEqual(['there', 'back']);
    }
  });

  test('may have either end on a WebSocket, which does not see the difference', async () => {
    const sizes = fc.array(
      fc.oneof(fc.nat(200), fc.constantFrom(125, 126, 65_535, 65_536), fc.nat(2_000_000)),
      {
        maxLength: 5,
      },
    );
    const { url, streams } = await listen();
    await fc.assert(
      fc.asyncProperty(sizes, sizes, fc.boolean(), async (up, down, laneCalls) => {
        const plain = laneCalls ? await rawServer() : undefined;
        streams.length = 0;
        // Node's own sockets mask with what is random; the agents' with zeros.
        const client = plain ? await connectData(plain.url, {}) : new WebSocket(`${url}${DATA_PATH}`);
        if (client instanceof WebSocket) await once(client, 'open');
        const server = plain ? await plain.next : streams[0]!;
        const [ups, downs] = [up, down].map((lengths) => lengths.map((length) => randomBytes(length)));
        const got = [collect(server, ups!.length), collect(client, downs!.length)];
        await Promise.all([
          ...ups!.map((bytes) => send(client, bytes)),
          ...downs!.map((bytes) => send(server, bytes)),
        ]);
        const [upGot, downGot] = await Promise.all(got);
        expect(upGot!.every((bytes, i) => bytes.equals(ups![i]!))).toBe(true);
        expect(downGot!.every((bytes, i) => bytes.equals(downs![i]!))).toBe(true);
        const ends = [closeOf(client), closeOf(server)];
        if (up.length % 2 === 0) client.close(4000, 'from the client');
        else server.close(4000, 'from the server');
        expect((await Promise.all(ends)).map(({ code }) => code)).toEqual([4000, 4000]);
        await plain?.close();
      }),
      { numRuns: 25 },
    );
  });

  test('hears pings and their answers from a WebSocket', async () => {
    const server = await rawServer();
    cleanups.push(server.close);
    const lane = (await connectData(server.url, {})) as LaneSocket;
    const raw = await server.next;
    const [pinged, ponged] = [once(raw, 'ping'), once(lane, 'pong')];
    lane.ping();
    await Promise.all([pinged, ponged]);
    const [heard, answered] = [once(lane, 'ping'), once(raw, 'pong')];
    raw.ping('payload');
    expect(String((await heard)[0])).toBe('payload');
    expect(String((await answered)[0])).toBe('payload');
    lane.terminate();
  });

  test('loses nothing that came along with the answer to the upgrade', async () => {
    const server = createServer((peer: Socket) => {
      peer.once('data', (chunk) => {
        const key = /sec-websocket-key: (.+)\r\n/i.exec(chunk.toString('latin1'))?.[1] ?? '';
        const accept = createHash('sha1')
          .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
          .digest('base64');
        const head = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
        // A message, and half of another's head.
        peer.write(
          Buffer.concat([Buffer.from(head), Buffer.of(0x82, 3), Buffer.from('abc'), Buffer.of(0x82)]),
        );
        setImmediate(() => peer.write(Buffer.concat([Buffer.of(2), Buffer.from('de')])));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const client = await connectData(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, {});
    expect(client).toBeInstanceOf(LaneSocket);
    expect((await collect(client, 2)).map(String)).toEqual(['abc', 'de']);
    client.terminate();
  });

  test('loses nothing that came along with the upgrade', async () => {
    const got = deferred<Promise<Buffer[]>>();
    const { url } = await listen('ws://127.0.0.1:0', {
      handlers: { [DATA_PATH]: (socket) => got.resolve(collect(socket, 2)) },
    });
    const { hostname, port } = new URL(url);
    const peer = connectTcp(Number(port), hostname);
    cleanups.push(() => peer.destroy());
    const request = `GET ${DATA_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`;
    const message = (text: string) =>
      Buffer.concat([Buffer.of(0x82, 0x80 | text.length, 0, 0, 0, 0), Buffer.from(text)]);
    peer.write(Buffer.concat([Buffer.from(request), message('abc'), message('de').subarray(0, 3)]));
    await once(peer, 'data');
    peer.write(message('de').subarray(3));
    expect((await await got.promise).map(String)).toEqual(['abc', 'de']);
  });

  test('ends when its listener closes, and counts as a connection until then', async () => {
    const { url, listener, streams } = await listen('ws://127.0.0.1:0', { maxConnections: 2 });
    const clients = [await connectData(url, {}), await connectData(url, {})];
    expect((await wireErrorFrom(connect(url, { path: DATA_PATH }))).code).toBe('E_CONNECT');
    const gone = closeOf(streams[1]!);
    clients[1]!.close();
    await gone;
    const third = await connectData(url, {});
    const ends = [clients[0]!, third].map(closeOf);
    await listener.close();
    expect(await Promise.all(ends)).toEqual([
      { code: 1001, reason: 'the agent is shutting down' },
      { code: 1001, reason: 'the agent is shutting down' },
    ]);
  });

  test('whose peer does not answer ends with its listener all the same', async () => {
    const { url, listener, streams } = await listen();
    const socket = new WebSocket(`${url}${DATA_PATH}`);
    await once(socket, 'open');
    socket.pause();
    cleanups.push(() => socket.terminate());
    const ended = closeOf(streams[0]!);
    await listener.close();
    expect((await ended).code).toBe(1006);
  });
});

describe('a link on lanes', () => {
  /** More than is sent. */
  const wide = { minBytes: 64 * 1024 * 1024, maxBytes: 64 * 1024 * 1024 };

  test('keeps the payload of pages as it came until they are consumed', async () => {
    const held: Frame[] = [];
    const { near, far, close } = await linkPair({}, { onFrame: (frame) => void held.push(frame) }, 'lane');
    cleanups.push(close);
    const sends = Array.from({ length: 60 }, (_, i) => near.send(filled(100_000, i)));
    // Out of order, and each looked at as late as can be.
    let consumed = 0;
    while (consumed < 60) {
      if (held.length === 0) await new Promise(setImmediate);
      const frame = held.length > 3 ? held.splice(1, 1)[0] : consumed > 50 ? held.shift() : held.pop();
      if (frame === undefined) continue;
      verifyPayload(frame);
      expect(frame.payload[0]).toBe((frame.sequence - 1) % 256);
      far.consumed(frame);
      consumed++;
    }
    await Promise.all(sends);
    await near.drained();
  });

  test('that consumes nothing holds its peer up, with a bounded amount of memory', async () => {
    const held: Frame[] = [];
    const sockets = await lanePair();
    cleanups.push(sockets.close);
    const near = new Link(sockets.client, { name: 'near', window: wide, onFrame: () => {} });
    const far = new Link(sockets.server, {
      name: 'far',
      receiveLimitBytes: 64 * 1024 * 1024,
      onFrame: (frame) => void held.push(frame),
    });
    for (let i = 0; i < 40; i++) void near.send(pagesFrame(1_000_000));
    while (sockets.server.stalled !== true) await new Promise(setImmediate);
    expect(held.length).toBeLessThanOrEqual(8);
    while (far.lastReceived < 40 || held.length > 0) {
      for (const frame of held.splice(0)) far.consumed(frame);
      await new Promise(setImmediate);
    }
    await near.drained();
    expect(near.bytesInFlight).toBe(0);
  });

  test('does not take a peer for gone that it does not listen to', async () => {
    const clock = new ManualClock();
    const held: Frame[] = [];
    const sockets = await lanePair();
    cleanups.push(sockets.close);
    const near = new Link(sockets.client, { name: 'near', window: wide, onFrame: () => {} });
    const far = new Link(sockets.server, { name: 'far', clock, onFrame: (frame) => void held.push(frame) });
    for (let i = 0; i < 20; i++) void near.send(pagesFrame(300_000));
    while (sockets.server.stalled !== true) await new Promise(setImmediate);
    for (let i = 0; i < 10; i++) clock.advance(5000);
    expect(far.state).toBe('open');
    while (far.lastReceived < 20) {
      for (const frame of held.splice(0)) far.consumed(frame);
      await new Promise(setImmediate);
    }
  });

  test('finds a peer that has gone silent', async () => {
    const server = await rawServer();
    cleanups.push(server.close);
    const clock = new ManualClock();
    const link = new Link(await connectData(server.url, {}), { name: 'data 0', clock, onFrame: () => {} });
    (await server.next).pause();
    for (let i = 0; i < 3; i++) clock.advance(5000);
    expect((await link.closed).error).toMatchObject({ code: 'E_TIMEOUT' });
  });

  test('copies what is little, so that it takes no message’s place', async () => {
    const inbox = new Inbox();
    const { near, close } = await linkPair({ window: wide }, { onFrame: inbox.onFrame }, 'lane');
    cleanups.push(close);
    for (let i = 0; i < 500; i++) void near.send(pagesFrame(1000));
    await inbox.has(500);
    expect(inbox.frames.every(({ payload }) => payload.length === 1000 && payload[999] === 7)).toBe(true);
  });
});

function filled(bytes: number, i: number) {
  const frame = pagesFrame(bytes);
  frame.buffer.fill(i % 256, HEADER_BYTES);
  return { ...frame, payloadHash: hashPayload(frame.buffer.subarray(HEADER_BYTES)) };
}
