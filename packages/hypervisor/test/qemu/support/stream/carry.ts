/** Moves a guest between two QEMUs through the codec, and keeps what the source's QEMU sent. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { DecodedItem, StreamEnd } from '../../../../src/qemu/stream/decoded.ts';
import { StreamDecoder } from '../../../../src/qemu/stream/decoder.ts';
import { StreamEncoder } from '../../../../src/qemu/stream/encoder.ts';
import { type Reply, ReturnPathDecoder } from '../../../../src/qemu/stream/return-path.ts';
import type { Qemu } from './qemu.ts';

export interface Carried {
  /** From the source's QEMU, as it sent it. */
  readonly forth: Buffer;
  /** From the destination's QEMU. */
  readonly back: Buffer;
  readonly replies: readonly Reply[];
  readonly kinds: ReadonlySet<string>;
  readonly end: StreamEnd;
}

export interface Carrier {
  /** What the source migrates to, and the destination listens on. */
  readonly sourceUri: string;
  readonly destUri: string;
  /** Resolves when the source has closed its side and everything is passed on. */
  readonly done: Promise<Carried>;
}

export async function carry(source: Qemu, dest: Qemu): Promise<Carrier> {
  const entry = join(source.dir, 'out.sock');
  const exit = join(dest.dir, 'in.sock');
  const server = createServer();
  server.listen(entry);
  await once(server, 'listening');
  const done = (async () => {
    const [from] = (await once(server, 'connection')) as [Socket];
    server.close();
    const to = connect(exit);
    await once(to, 'connect');
    return await passAll(from, to);
  })();
  return { sourceUri: `unix:${entry}`, destUri: `unix:${exit}`, done };
}

async function passAll(from: Socket, to: Socket): Promise<Carried> {
  const forth: Buffer[] = [];
  const back: Buffer[] = [];
  const replies: Reply[] = [];
  const kinds = new Set<string>();
  const returnPath = new ReturnPathDecoder();
  to.on('data', (chunk: Buffer) => {
    back.push(chunk);
    replies.push(...returnPath.push(chunk));
    from.write(chunk);
  });
  to.on('error', () => {});
  from.on('error', () => {});
  const decoder = new StreamDecoder({ batchPages: 64 });
  const encoder = new StreamEncoder();
  const pass = (item: DecodedItem): boolean => {
    kinds.add(item.type === 'command' ? item.name : item.type);
    if (item.type === 'state-complete') {
      decoder.flushAtChunkEnd = true;
      encoder.wholeHostPages = true;
    }
    if (item.type === 'command' || item.type === 'ram-end') return true;
    const bytes = encoder.encode(item);
    if (item.type === 'pages') item.release();
    return bytes.length === 0 || to.write(bytes);
  };
  for await (const chunk of from as AsyncIterable<Buffer>) {
    forth.push(chunk);
    let ready = true;
    for (const item of decoder.decode(chunk)) ready = pass(item) && ready;
    if (!ready) await once(to, 'drain');
  }
  to.end();
  return { forth: Buffer.concat(forth), back: Buffer.concat(back), replies, kinds, end: decoder.finish() };
}
