import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { FrameKind } from '../src/frame.ts';
import { Link } from '../src/link.ts';
import { Tunnel } from '../src/tunnel.ts';
import { pagesFrame, type SocketPair, socketPair } from './support.ts';

const pairs: SocketPair[] = [];
afterEach(async () => {
  for (const pair of pairs.splice(0)) await pair.close();
});

/** Two ends of a local connection. */
async function localPair(): Promise<readonly [Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  near.on('error', () => {});
  const [far] = await accepted;
  server.close();
  return [near, far];
}

interface Ends {
  readonly near: Duplex;
  readonly far: Duplex;
  readonly links: readonly [Link, Link];
  readonly tunnels: readonly [Tunnel, Tunnel];
}

async function tunnel(windowBytes?: number): Promise<Ends> {
  const pair = await socketPair();
  pairs.push(pair);
  const [[near, nearLocal], [far, farLocal]] = [await localPair(), await localPair()];
  const tunnels: Tunnel[] = [];
  const window =
    windowBytes === undefined ? {} : { window: { maxBytes: windowBytes, minBytes: windowBytes } };
  const links = [pair.client, pair.server].map(
    (socket, index) =>
      new Link(socket, {
        name: `end ${index}`,
        onFrame: (frame) => tunnels[index]?.onFrame(frame),
        ...window,
      }),
  ) as [Link, Link];
  tunnels.push(new Tunnel(links[0], nearLocal), new Tunnel(links[1], farLocal));
  return { near, far, links, tunnels: tunnels as unknown as [Tunnel, Tunnel] };
}

async function all(from: Duplex): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of from) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

test('bytes arrive as they were sent, both ways, and the end of one side ends both', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 5000 }), { maxLength: 20 }),
      fc.array(fc.uint8Array({ maxLength: 5000 }), { maxLength: 20 }),
      async (there, back) => {
        const { near, far, tunnels } = await tunnel();
        const backBytes = Buffer.concat(back);
        const arrivedBack = new Promise<Buffer>((resolve) => {
          let got = Buffer.alloc(0);
          if (backBytes.length === 0) resolve(got);
          near.on('data', (chunk: Buffer) => {
            got = Buffer.concat([got, chunk]);
            if (got.length >= backBytes.length) resolve(got);
          });
        });
        for (const piece of back) far.write(piece);
        expect(await arrivedBack).toEqual(backBytes);
        for (const piece of there) near.write(piece);
        near.end();
        expect(await all(far)).toEqual(Buffer.concat(there));
        for (const { ended } of tunnels) expect(await ended).toEqual({});
      },
    ),
    { numRuns: 15 },
  );
});

test('no more is on its way than the window has room for, however slow the other side takes it', async () => {
  const WINDOW = 128 * 1024;
  const { near, far, links } = await tunnel(WINDOW);
  const content = Buffer.alloc(4 * 1024 * 1024, 7);
  near.end(content);
  let most = 0;
  let got = 0;
  for await (const piece of far) {
    got += (piece as Buffer).length;
    most = Math.max(most, links[0].bytesInFlight);
  }
  expect(got).toBe(content.length);
  // A frame is let through where the window is smaller than it.
  expect(most).toBeLessThanOrEqual(WINDOW + 256 * 1024 + 64);
});

test('a link that breaks ends the local connection, and says so', async () => {
  const { near, links, tunnels } = await tunnel();
  near.resume();
  const closed = once(near, 'close');
  pairs[0]!.server.terminate();
  await closed;
  expect((await tunnels[0].ended).error?.code).toBe('E_CLOSED');
  expect(links[0].state).toBe('closed');
});

test('a peer that sends anything but bytes is dropped', async () => {
  const { links, tunnels } = await tunnel();
  await links[0].send(pagesFrame(100));
  expect((await tunnels[1].ended).error?.message).toContain(`a frame of kind ${FrameKind.pages} came`);
});
