import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalSocket } from '@vmferry/native/local-socket';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { shared } from './arbitraries.ts';

interface Pieces {
  readonly first: Uint8Array;
  readonly second: Uint8Array;
  readonly lengths: Uint32Array;
}

/** Bytes that tell where they came from: a shift by one is seen. */
function tellingBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >>> 8) * 7 + seed) & 0xff;
  return bytes;
}

function piecesOf(lengths: readonly number[]): Pieces {
  const sum = (turn: number): number => lengths.reduce((all, n, i) => all + (i % 2 === turn ? n : 0), 0);
  return {
    first: tellingBytes(sum(0), 1),
    second: tellingBytes(sum(1), 99),
    lengths: Uint32Array.from(lengths),
  };
}

/** What has to arrive, put together the plain way. */
function joined({ first, second, lengths }: Pieces): Buffer {
  const at = [0, 0];
  const parts = [...lengths].map((length, i) => {
    const from = at[i % 2]!;
    at[i % 2] = from + length;
    return [first, second][i % 2]!.subarray(from, from + length);
  });
  return Buffer.concat(parts);
}

let folder: string;
let server: Server;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-interleaved-'));
  server = createServer({ pauseOnConnect: true });
  server.listen(join(folder, 'peer'));
  await once(server, 'listening');
});
afterEach(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function pair(sendBufferBytes?: number): Promise<{ native: LocalSocket; peer: Socket }> {
  const connected = once(server, 'connection');
  const path = join(folder, 'peer');
  const native = LocalSocket.connect(path, sendBufferBytes === undefined ? {} : { sendBufferBytes });
  const [peer] = (await connected) as [Socket];
  return { native, peer };
}

async function readAll(peer: Socket): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of peer) parts.push(chunk as Buffer);
  return Buffer.concat(parts);
}

/** What the peer got of what `send` sent. */
async function arrived(
  send: (native: LocalSocket) => Promise<unknown>,
  sendBufferBytes?: number,
): Promise<Buffer> {
  const { native, peer } = await pair(sendBufferBytes);
  const all = readAll(peer);
  await send(native);
  native.close();
  return await all;
}

const run = fc.oneof(
  fc.constant(0),
  fc.integer({ min: 1, max: 20 }),
  fc.constant(4096),
  fc.integer({ min: 1, max: 9000 }),
);

describe('an interleaved send', () => {
  test('arrives as if it had been joined first, however little the kernel takes at a time', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(run, { maxLength: 60 }),
        fc.integer({ min: 0, max: 12_000 }),
        async (lengths, room) => {
          const pieces = piecesOf(lengths);
          const got = await arrived(
            (native) => native.sendInterleaved(pieces.first, pieces.second, pieces.lengths),
            room,
          );
          expect(Buffer.compare(got, joined(pieces))).toBe(0);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('arrives whole with more pieces than one call of the system takes', async () => {
    const pieces = piecesOf(Array.from({ length: 5001 }, (_, i) => (i % 2 === 0 ? 8 : i % 7)));
    const got = await arrived((native) =>
      native.sendInterleaved(shared(pieces.first), shared(pieces.second), pieces.lengths),
    );
    expect(Buffer.compare(got, joined(pieces))).toBe(0);
  });

  test('keeps its place among other sends', async () => {
    const big = piecesOf(Array.from({ length: 301 }, (_, i) => (i % 2 === 0 ? 8 : 4096)));
    const plain = tellingBytes(200_000, 5);
    const little = tellingBytes(3000, 6);
    const got = await arrived((native) =>
      Promise.all([
        native.sendInterleaved(big.first, big.second, big.lengths),
        native.send(plain),
        native.sendInterleaved(big.first, big.second, big.lengths),
        native.sendSoon(little),
        native.sendInterleaved(big.first, big.second, big.lengths),
      ]),
    );
    const parts = [joined(big), plain, joined(big), little, joined(big)];
    expect(Buffer.compare(got, Buffer.concat(parts))).toBe(0);
  });

  test('reads the lengths before it returns', async () => {
    const pieces = piecesOf([8, 4096, 8, 4096, 13]);
    const expected = joined(pieces);
    const got = await arrived((native) => {
      const sent = native.sendInterleaved(pieces.first, pieces.second, pieces.lengths);
      pieces.lengths.fill(0xffffffff);
      return sent;
    });
    expect(Buffer.compare(got, expected)).toBe(0);
  });

  test('whose lengths are not exactly those of the two arrays sends nothing, and does not hold up the next', async () => {
    const { first, second, lengths } = piecesOf([8, 4096, 8, 4096, 13]);
    const bounds = expect.objectContaining({ code: 'E_NATIVE_BOUNDS' });
    const got = await arrived(async (native) => {
      const wrong: [unknown, unknown, unknown][] = [
        [first.subarray(1), second, lengths],
        [new Uint8Array(first.length + 1), second, lengths],
        [first, second.subarray(0, -1), lengths],
        [first, new Uint8Array(0), lengths],
        [second, first, lengths],
        [first, second, lengths.subarray(0, 3)],
        [first, second, new Uint32Array(0)],
        // Sums that come out right in 32 bits only.
        [first, second, Uint32Array.of(8, 8192, 0xffffffff, 0, 22)],
        [first, second, Uint8Array.from(lengths)],
        [first, second, [...lengths]],
        [first, 'content', lengths],
        [undefined, second, lengths],
      ];
      for (const [a, b, c] of wrong) {
        await expect(native.sendInterleaved(a as never, b as never, c as never)).rejects.toEqual(bounds);
      }
      await native.send(Buffer.from('next'));
    });
    expect(got.toString()).toBe('next');
  });

  test('of nothing is done at once', async () => {
    const empty = piecesOf([]);
    const got = await arrived(async (native) => {
      await native.sendInterleaved(empty.first, empty.second, empty.lengths);
      await native.sendInterleaved(empty.first, empty.second, Uint32Array.of(0, 0, 0));
    });
    expect(got).toHaveLength(0);
  });

  test('ends when the socket is closed under it, with those behind it', async () => {
    const { native, peer } = await pair(10_000);
    const pieces = piecesOf(Array.from({ length: 401 }, (_, i) => (i % 2 === 0 ? 8 : 4096)));
    const closed = expect.objectContaining({ code: expect.stringMatching(/E_NATIVE_(CLOSED|SYSTEM)/) });
    const sends = [1, 2, 3].map(() =>
      native.sendInterleaved(pieces.first, pieces.second, pieces.lengths).then(
        () => 'sent',
        (error: unknown) => error,
      ),
    );
    // The first waits for room once some of it is there.
    peer.once('readable', () => native.close());
    peer.on('error', () => {});
    for (const outcome of await Promise.all(sends)) expect(outcome).toEqual(closed);
    await expect(native.sendInterleaved(pieces.first, pieces.second, pieces.lengths)).rejects.toMatchObject({
      code: 'E_NATIVE_CLOSED',
    });
    peer.destroy();
  });

  test('to a reader that is gone is an error, not a signal', async () => {
    const { native, peer } = await pair();
    const gone = once(peer, 'close');
    peer.destroy();
    await gone;
    const pieces = piecesOf([8, 4096, 8]);
    await expect(native.sendInterleaved(pieces.first, pieces.second, pieces.lengths)).rejects.toMatchObject({
      code: 'E_NATIVE_SYSTEM',
      errno: 'EPIPE',
    });
    native.close();
  });
});
