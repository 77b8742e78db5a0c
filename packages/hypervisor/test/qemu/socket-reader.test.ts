import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SocketReader } from '@vmferry/hypervisor/qemu/socket-reader';
import { LocalListener, type LocalSocket } from '@vmferry/native/local-socket';
import { afterEach, beforeEach, expect, test } from 'vitest';

let folder: string;
let socket: LocalSocket;
let peer: Socket;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-reader-'));
  const path = join(folder, 'socket');
  const accepted = new LocalListener(path).accept();
  peer = connect(path);
  socket = (await accepted)!;
});
afterEach(() => {
  socket.close();
  peer.destroy();
  rmSync(folder, { recursive: true, force: true });
});

async function readAll(reader: SocketReader): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  while (!reader.ended) {
    const chunk = reader.read();
    if (chunk) chunks.push(Buffer.from(chunk));
    else await reader.more();
  }
  return chunks;
}

test('all that was written comes, in order, in chunks of the size that was asked for', async () => {
  const reader = new SocketReader(socket);
  reader.chunkBytes = 10_000;
  const sent = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 251));
  peer.end(sent);
  const chunks = await readAll(reader);
  expect(Buffer.compare(Buffer.concat(chunks), sent)).toBe(0);
  expect(Math.max(...chunks.map(({ length }) => length))).toBe(10_000);
});

test('nothing is pulled before the first read', async () => {
  const reader = new SocketReader(socket);
  const most = 4 * 1024 * 1024;
  let written = 0;
  while (written < most && peer.write(Buffer.alloc(64 * 1024))) written += 64 * 1024;
  // The kernel's buffer is full, and stays so.
  expect(written).toBeLessThan(most);
  const drained = new Promise((resolve) => peer.once('drain', resolve));
  expect(reader.read()).toBeUndefined();
  void readAll(reader).catch(() => {});
  await drained;
});

test('who waits is woken by what comes, by the end, and when told to', async () => {
  const reader = new SocketReader(socket);
  reader.eager = true;
  expect(reader.read()).toBeUndefined();
  const woken = reader.more();
  reader.wake();
  await woken;
  const come = reader.more();
  peer.write('abc');
  await come;
  expect(reader.read()?.toString()).toBe('abc');
  const ended = reader.more();
  peer.end();
  await ended;
  expect(reader.ended).toBe(true);
});

test('what is discarded never shows, and the end does', async () => {
  const reader = new SocketReader(socket);
  expect(reader.read()).toBeUndefined();
  reader.discard();
  peer.end(Buffer.alloc(200_000));
  while (!reader.ended) await reader.more();
  expect(reader.read()).toBeUndefined();
});
