import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { LocalListener, LocalSocket } from '@vmferry/native/local-socket';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';

const addonPath =
  process.env['VMFERRY_NATIVE_ADDON'] ??
  fileURLToPath(new URL('../build/Release/vmferry.node', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-local-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function pair(): Promise<{ native: LocalSocket; peer: Socket }> {
  const path = join(folder, 'socket');
  const listener = new LocalListener(path);
  const accepted = listener.accept();
  const peer = connect(path);
  return { native: (await accepted)!, peer };
}

async function readAll(socket: LocalSocket, bufferBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  const buffer = Buffer.alloc(bufferBytes);
  for (;;) {
    const bytes = await socket.receive(buffer, bufferBytes, 1);
    if (bytes === 0) return Buffer.concat(parts);
    parts.push(Buffer.from(buffer.subarray(0, bytes)));
  }
}

test('what a peer writes arrives whole and in order, whatever the sizes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 300_000 }), { maxLength: 8 }), async (pieces) => {
      const { native, peer } = await pair();
      const received = readAll(native, 65_536);
      for (const piece of pieces) peer.write(piece);
      peer.end();
      expect(Buffer.compare(await received, Buffer.concat(pieces))).toBe(0);
      native.close();
      rmSync(join(folder, 'socket'));
    }),
    { numRuns: 25 },
  );
});

test('sends go out in the order of the calls', async () => {
  const path = join(folder, 'peer');
  const got: Buffer[] = [];
  const server = createServer((socket) => socket.on('data', (chunk) => got.push(chunk)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const ended = new Promise<void>((resolve) =>
    server.on('connection', (socket) => socket.on('end', resolve)),
  );
  const native = LocalSocket.connect(path);
  const pieces = Array.from({ length: 40 }, (_, i) => Buffer.alloc(50_000, i));
  // Two at a time, as it is meant to be used.
  for (let i = 0; i < pieces.length; i += 2)
    await Promise.all([native.send(pieces[i]!), native.send(pieces[i + 1]!)]);
  native.close();
  await ended;
  expect(Buffer.compare(Buffer.concat(got), Buffer.concat(pieces))).toBe(0);
  server.close();
});

test('small sends go out at once, and in order with those that have to wait for the reader', async () => {
  const { native, peer } = await pair();
  peer.pause();
  const pieces = Array.from({ length: 60 }, (_, i) => Buffer.alloc(20_000, i));
  const sent: Promise<void>[] = [];
  // Whatever does not fit is one send under way; the next call waits for its turn behind it.
  for (const piece of pieces) {
    sent.push(native.sendSoon(piece));
    if (sent.length % 2 === 0 && sent.length > 30) break;
  }
  const expected = Buffer.concat(pieces.slice(0, sent.length));
  const got: Buffer[] = [];
  const all = new Promise<void>((resolve) => {
    peer.on('data', (chunk) => {
      got.push(chunk as Buffer);
      if (Buffer.concat(got).length === expected.length) resolve();
    });
  });
  peer.resume();
  await Promise.all([all, ...sent]);
  expect(Buffer.compare(Buffer.concat(got), expected)).toBe(0);
  native.close();
  peer.destroy();
});

test('a receive that lingers gives what has come when nothing more does', async () => {
  const { native, peer } = await pair();
  peer.write('abc');
  const buffer = Buffer.alloc(100);
  expect(await native.receive(buffer, 100, 5)).toBe(3);
  peer.destroy();
  expect(await native.receive(buffer, 1, 0)).toBe(0);
  native.close();
});

test('closing ends what waits: a receive with nothing, an accept with no connection', async () => {
  const { native } = await pair();
  const waiting = native.receive(Buffer.alloc(10), 1, 0);
  native.close();
  native.close();
  expect(await waiting).toBe(0);
  await expect(native.send(Buffer.from('x'))).rejects.toMatchObject({ code: 'E_NATIVE_CLOSED' });
  const listener = new LocalListener(join(folder, 'other'));
  const accept = listener.accept();
  listener.close();
  expect(await accept).toBeUndefined();
});

test('closing ends a send that waits, and those behind it', async () => {
  const { native, peer } = await pair();
  peer.pause();
  const sends = [native.send(Buffer.alloc(8_000_000)), native.send(Buffer.alloc(10))];
  const ended = Promise.allSettled(sends);
  native.close();
  for (const end of await ended) expect(end).toMatchObject({ reason: { code: 'E_NATIVE_CLOSED' } });
  peer.destroy();
});

test('however many sockets wait, files and other work go on', async () => {
  const listeners = Array.from({ length: 12 }, (_, i) => new LocalListener(join(folder, `s${i}`)));
  const accepts = listeners.map((listener) => listener.accept());
  const peers = listeners.map((_, i) => connect(join(folder, `s${i}`)));
  const sockets = (await Promise.all(accepts)).map((socket) => socket!);
  const receives = sockets.map((socket) => socket.receive(Buffer.alloc(10), 1, 0));
  peers.forEach((peer) => {
    peer.pause();
  });
  const sends = Promise.allSettled(sockets.map((socket) => socket.send(Buffer.alloc(8_000_000))));
  await writeFile(join(folder, 'file'), 'text');
  expect(await readFile(join(folder, 'file'), 'utf8')).toBe('text');
  for (const socket of sockets) socket.close();
  expect(await Promise.all(receives)).toEqual(sockets.map(() => 0));
  await sends;
  for (const peer of peers) peer.destroy();
});

test('a thread of Node that ends does not wait for its sockets', async () => {
  const path = join(folder, 'silent');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  for (let round = 0; round < 10; round++) {
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
       const { LocalSocket } = require(workerData.addon);
       const socket = new LocalSocket(workerData.path, false, 65536);
       socket.receive(new Uint8Array(10), 1, 0, () => parentPort.postMessage('came'));
       socket.send(new Uint8Array(8_000_000), () => parentPort.postMessage('sent'));
       parentPort.postMessage('waits');`,
      { eval: true, workerData: { addon: addonPath, path } },
    );
    const messages: unknown[] = [];
    worker.on('message', (message) => messages.push(message));
    await once(worker, 'message');
    await worker.terminate();
    expect(messages).toEqual(['waits']);
  }
  server.close();
});

test('a reader that is gone is an error of the send, not a signal', async () => {
  const { native, peer } = await pair();
  const gone = new Promise((resolve) => peer.on('close', resolve));
  peer.destroy();
  await gone;
  const big = Buffer.alloc(4_000_000);
  await expect(native.send(big)).rejects.toMatchObject({ code: 'E_NATIVE_SYSTEM', errno: 'EPIPE' });
  native.close();
});

test('bad paths, buffers and numbers are refused', async () => {
  expect(() => LocalSocket.connect(join(folder, 'nobody'))).toThrow(/ENOENT/);
  expect(() => LocalSocket.connect('')).toThrow(/1 to 107 bytes/);
  expect(() => new LocalListener('x'.repeat(108))).toThrow(/1 to 107 bytes/);
  expect(() => new LocalListener('a\0b')).toThrow(/1 to 107 bytes/);
  const { native, peer } = await pair();
  await expect(native.receive(Buffer.alloc(0), 0, 0)).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
  await expect(native.receive(Buffer.alloc(4), 5, 0)).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
  await expect(native.receive(Buffer.alloc(4), 1, 5000)).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
  await expect(native.send('text' as never)).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
  native.close();
  peer.destroy();
});
