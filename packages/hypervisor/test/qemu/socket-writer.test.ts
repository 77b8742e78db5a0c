import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PageBatch } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import { type BlockIndex, type Bytes, round } from '@vmferry/engine/units';
import { LocalSocket } from '@vmferry/native/local-socket';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SocketWriter } from '../../src/qemu/socket-writer.ts';
import { StreamEncoder } from '../../src/qemu/stream/encoder.ts';
import { ModelStream } from './support/stream/model.ts';

const BLOCK_PAGES = 2 ** 21;

function encoder(): StreamEncoder {
  const made = new StreamEncoder();
  made.opaque(
    new ModelStream(77)
      .header('q35')
      .advise(4096)
      .setup([
        { name: 'a block of another name', pages: 1 },
        { name: 'pc.ram', pages: BLOCK_PAGES },
      ]).bytes,
  );
  return made;
}

function batch(list: readonly (readonly [page: number, raw: boolean])[], seed = 0): PageBatch {
  const raw = list.filter(([, isRaw]) => isRaw).length;
  const content = new Uint8Array(raw * 4096);
  for (let i = 0; i < content.length; i++) content[i] = (i * 13 + (i >>> 12) * 7 + seed) & 0xff;
  return {
    type: 'pages',
    block: 1 as BlockIndex,
    round: round(1),
    lane: 'bulk',
    pages: Uint32Array.from(list, ([page]) => page),
    kinds: Uint8Array.from(list, ([, isRaw]) => (isRaw ? PageKind.raw : PageKind.zero)),
    content,
    headroomBytes: 0 as Bytes,
    release: () => {},
  };
}

const rawRun = (first: number, count: number, seed: number): PageBatch =>
  batch(
    Array.from({ length: count }, (_, i) => [first + i, true] as const),
    seed,
  );

let folder: string;
let server: Server;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-writer-'));
  server = createServer({ pauseOnConnect: true });
  server.listen(join(folder, 'qemu'));
  await once(server, 'listening');
});
afterEach(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function pair(sendBufferBytes: number): Promise<{ socket: LocalSocket; qemu: Socket }> {
  const connected = once(server, 'connection');
  const socket = LocalSocket.connect(join(folder, 'qemu'), { sendBufferBytes });
  const [qemu] = (await connected) as [Socket];
  return { socket, qemu };
}

async function readAll(qemu: Socket): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of qemu) parts.push(chunk as Buffer);
  return Buffer.concat(parts);
}

describe('the writer of the stream', () => {
  it('sends a batch in pieces as it would have been encoded in one', async () => {
    const lists = fc.array(
      fc.array(fc.tuple(fc.nat(BLOCK_PAGES - 1), fc.boolean()), { maxLength: 60, size: 'max' }),
      { maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(lists, fc.nat(20_000), async (lists, room) => {
        const model = encoder();
        const batches = lists.map((list, i) => batch(list, i));
        const { socket, qemu } = await pair(room);
        const all = readAll(qemu);
        const writer = new SocketWriter(socket);
        await Promise.all(batches.map((each) => writer.writePieces(model.sectionPieces(each), 'bulk')));
        socket.close();
        const expected = Buffer.concat(batches.map((each) => model.encodePages(each)));
        expect(Buffer.compare(await all, expected)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('refuses batches in pieces as it does in one', () => {
    const wrong: [PageBatch, RegExp][] = [
      [{ ...rawRun(0, 2, 0), content: new Uint8Array(4096) }, /4096 bytes of content/],
      [{ ...rawRun(0, 2, 0), kinds: Uint8Array.of(PageKind.raw, 9) }, /kind 9/],
      [{ ...rawRun(0, 2, 0), kinds: Uint8Array.of(PageKind.raw) }, /2 pages and 1 kinds/],
      [{ ...rawRun(0, 2, 0), block: 2 as BlockIndex }, /not in the layout/],
      [rawRun(BLOCK_PAGES - 1, 2, 0), /outside block 1/],
    ];
    for (const [each, message] of wrong) {
      expect(() => encoder().encodePages(each)).toThrow(message);
      expect(() => encoder().sectionPieces(each)).toThrow(message);
    }
  });

  it('is done with a batch only when the kernel has all of it, and sends what is urgent before what waits', async () => {
    const model = encoder();
    const { socket, qemu } = await pair(20_000);
    const writer = new SocketWriter(socket);
    const done: string[] = [];
    const bulk = [0, 1, 2, 3].map((i) => {
      const pieces = model.sectionPieces(rawRun(i * 100, 100, i));
      return writer.writePieces(pieces, 'bulk').then(() => done.push(`bulk ${i}`));
    });
    const answer = model.encodePages(rawRun(7000, 1, 9));
    const urgent = writer.write(answer, 'express').then(() => done.push('express'));
    // Nobody reads, and it is far more than the kernel takes.
    const first = await Promise.race([bulk[0]!, once(qemu, 'readable').then(() => 'readable')]);
    expect(first).toBe('readable');
    expect(done).toEqual([]);
    const got = await Promise.all([readAll(qemu), Promise.all([...bulk, urgent]).then(() => socket.close())]);
    expect(done).toEqual(['bulk 0', 'bulk 1', 'express', 'bulk 2', 'bulk 3']);
    const [one, two, ...rest] = [0, 1, 2, 3].map((i) => model.encodePages(rawRun(i * 100, 100, i)));
    expect(Buffer.compare(got[0], Buffer.concat([one!, two!, answer, ...rest]))).toBe(0);
  });

  it('rejects everything, each when nothing uses it any more, once the reader is gone', async () => {
    const { socket, qemu } = await pair(20_000);
    const writer = new SocketWriter(socket);
    const model = encoder();
    const writes = [0, 1, 2, 3].map((i) =>
      writer.writePieces(model.sectionPieces(rawRun(i * 100, 100, i)), 'bulk'),
    );
    const outcomes = Promise.allSettled(writes);
    qemu.destroy();
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'E_GUEST_FAILED' } });
    }
    const late = writer.writePieces(model.sectionPieces(rawRun(0, 100, 0)), 'bulk');
    await expect(late).rejects.toMatchObject({ code: 'E_GUEST_FAILED' });
    socket.close();
  });
});
