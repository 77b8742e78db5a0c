import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { FrameLane } from '@vmferry/native/frame-lane';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  closePayload,
  type FrameParts,
  frame,
  lanePair,
  laneToRaw,
  NO_MASK,
  Op,
  RawReader,
  TestLane,
  tcpPair,
} from './lane-support.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

type LaneOptions = NonNullable<Parameters<typeof laneToRaw>[0]>;

async function toRaw(options: LaneOptions = {}) {
  const { near, peer } = await laneToRaw(options);
  cleanups.push(async () => {
    near.lane.terminate();
    peer.destroy();
    await near.ended;
  });
  return { near, peer, reader: new RawReader(peer) };
}

async function pair(options: LaneOptions = {}) {
  const lanes = await lanePair(options);
  cleanups.push(async () => {
    lanes.client.lane.terminate();
    lanes.server.lane.terminate();
    await Promise.all([lanes.client.ended, lanes.server.ended]);
  });
  return lanes;
}

const threads = () => readdirSync('/proc/self/task').length;
const descriptors = () => readdirSync('/proc/self/fd').length;

describe('two lanes', () => {
  test('carry messages of any size in both directions at once, whole and in order', async () => {
    const sizes = fc.array(
      fc.oneof(fc.nat(300), fc.constantFrom(125, 126, 65_535, 65_536), fc.nat(300_000)),
      {
        maxLength: 8,
      },
    );
    await fc.assert(
      fc.asyncProperty(sizes, sizes, async (up, down) => {
        const { client, server } = await lanePair({ maxMessageBytes: 300_000, maxBuffers: 3 });
        const run = async (from: TestLane, to: TestLane, lengths: number[]) => {
          const sent = lengths.map((length) => randomBytes(length));
          const written = Promise.all(sent.map((bytes) => from.send(bytes)));
          for (const bytes of sent) {
            const { content, isBinary } = await to.take();
            expect(isBinary).toBe(true);
            expect(content.equals(bytes)).toBe(true);
          }
          await written;
        };
        await Promise.all([run(client, server, up), run(server, client, down)]);
        client.lane.close(1000, 'done');
        expect(await server.ended).toEqual({ code: 1000, reason: 'done' });
        expect(await client.ended).toEqual({ code: 1000, reason: '' });
        expect([...client.failures, ...server.failures, ...client.violations]).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  test('answer each other’s pings', async () => {
    const { client, server } = await pair();
    client.lane.ping();
    await client.until(() => client.pongs.length > 0);
    await server.until(() => server.pings.length > 0);
    server.lane.ping();
    await server.until(() => server.pongs.length > 0);
    await client.until(() => client.pings.length > 0);
    expect([...client.pings, ...server.pings]).toEqual(['', '']);
  });

  test('that close at once both end in order', async () => {
    const { client, server } = await pair();
    client.lane.close(4001, 'c');
    server.lane.close(4002, 's');
    server.lane.close(4003, 'again');
    // Its close may have been read before the server's was asked for: then it is echoed.
    expect([
      { code: 4002, reason: 's' },
      { code: 4001, reason: '' },
    ]).toContainEqual(await client.ended);
    expect(await server.ended).toEqual({ code: 4001, reason: 'c' });
  });

  test('deliver what was sent before the close', async () => {
    const { client, server } = await pair({ maxMessageBytes: 1_000_000 });
    const sent = Array.from({ length: 20 }, (_, i) => Buffer.alloc(1_000_000, i));
    const done = Promise.all(sent.map((bytes) => client.send(bytes)));
    client.lane.close();
    for (const bytes of sent) expect((await server.take()).content.equals(bytes)).toBe(true);
    await done;
    expect(await server.ended).toEqual({ code: 1000, reason: '' });
  });

  test('leave neither descriptors nor threads behind, a thousand times over', async () => {
    // What Node makes at first use is there after one.
    const once = await lanePair();
    once.client.lane.close();
    await Promise.all([once.client.ended, once.server.ended]);
    const before = { threads: threads(), descriptors: descriptors() };
    for (let round = 0; round < 50; round++) {
      const lanes = await Promise.all(Array.from({ length: 10 }, () => lanePair({ maxMessageBytes: 4096 })));
      await Promise.all(
        lanes.map(async ({ client, server }, i) => {
          await client.send(Buffer.from('x'));
          await server.take();
          if (i % 2 === 0) client.lane.close();
          else server.lane.terminate();
          await Promise.all([client.ended, server.ended]);
        }),
      );
    }
    // A descriptor of a socket that was let go closes in a turn of its own. Others in this process come and go
    // with a few; the lanes would have left thousands.
    await new Promise((resolve) => setImmediate(resolve));
    expect(threads()).toBeLessThan(before.threads + 20);
    expect(descriptors()).toBeLessThan(before.descriptors + 20);
  });
});

interface Piece {
  readonly content: Uint8Array;
  readonly isBinary: boolean;
  readonly cuts: readonly number[];
  readonly pings: readonly boolean[];
  readonly mask: Uint8Array;
}

const pieces = fc.array(
  fc.record({
    content: fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 0, max: 90_000 }).map((length) => randomBytes(length)),
    ),
    isBinary: fc.boolean(),
    cuts: fc.array(fc.nat(100_000), { maxLength: 4 }),
    pings: fc.array(fc.boolean(), { maxLength: 5 }),
    mask: fc.oneof(fc.constant(new Uint8Array(4)), fc.uint8Array({ minLength: 4, maxLength: 4 })),
  }),
  { maxLength: 6 },
);

/** The message in fragments, with pings between them. */
function encode({ content, isBinary, cuts, pings, mask }: Piece, masked: boolean): Buffer[] {
  const ends = [...new Set(cuts.map((cut) => Math.min(cut, content.length)))].sort((a, b) => a - b);
  const bounds = [0, ...ends, content.length];
  const withMask: Pick<FrameParts, 'mask'> = { mask: masked ? mask : undefined };
  return bounds.slice(1).flatMap((end, i) => {
    const opcode = i > 0 ? Op.continuation : isBinary ? Op.binary : Op.text;
    const payload = content.subarray(bounds[i]!, end);
    const fragment = frame({ opcode, payload, final: i === bounds.length - 2, ...withMask });
    const ping = frame({ opcode: Op.ping, payload: Buffer.from('?'), ...withMask });
    return pings[i] ? [ping, fragment] : [fragment];
  });
}

describe('what a peer sends', () => {
  test.each(['server', 'client'] as const)(
    'is put together however it was fragmented, masked and cut, by a %s',
    async (role) => {
      await fc.assert(
        fc.asyncProperty(
          pieces,
          fc.nat(500),
          fc.array(fc.integer({ min: 1, max: 70_000 }), { maxLength: 30 }),
          async (sent, prefixBytes, writes) => {
            const stream = Buffer.concat(sent.flatMap((piece) => encode(piece, role === 'server')));
            const [socket, peer] = await tcpPair();
            const prefix = stream.subarray(0, prefixBytes);
            const near = new TestLane(socket, { role, maxMessageBytes: 90_000, maxBuffers: 2, prefix });
            peer.resume();
            const writing = writeInPieces(peer, stream.subarray(prefix.length), writes);
            for (const { content, isBinary } of sent) {
              const got = await near.take();
              expect(got.isBinary).toBe(isBinary);
              expect(Buffer.compare(got.content, content)).toBe(0);
            }
            await writing;
            peer.destroy();
            await near.ended;
            expect(near.violations).toEqual([]);
          },
        ),
        { numRuns: 60 },
      );
    },
  );

  test('is answered, when it is a ping, with its own payload', async () => {
    const { near, peer, reader } = await toRaw();
    peer.write(frame({ opcode: Op.ping, payload: Buffer.from('are you there'), mask: Buffer.from('mask') }));
    const pong = frame({ opcode: Op.pong, payload: Buffer.from('are you there') });
    expect(await reader.bytes(pong.length)).toEqual(pong);
    await near.until(() => near.pings.length > 0);
    expect(near.pings).toEqual(['are you there']);
    peer.write(frame({ opcode: Op.pong, payload: Buffer.from('here'), mask: NO_MASK }));
    await near.until(() => near.pongs.length > 0);
    expect(near.pongs).toEqual(['here']);
  });

  test('is told with code and reason, and answered, when it is a close frame', async () => {
    const { near, peer, reader } = await toRaw();
    peer.write(frame({ opcode: Op.close, payload: closePayload(4321, 'grüße'), mask: NO_MASK }));
    // The server's end of the stream comes with the answer.
    expect(await reader.rest()).toEqual(frame({ opcode: Op.close, payload: closePayload(4321) }));
    peer.end();
    expect(await near.ended).toEqual({ code: 4321, reason: 'grüße' });
  });

  test('may be a close frame without a code', async () => {
    const { near, peer, reader } = await toRaw();
    peer.write(frame({ opcode: Op.close, mask: NO_MASK }));
    expect(await reader.rest()).toEqual(frame({ opcode: Op.close }));
    peer.end();
    expect(await near.ended).toEqual({ code: 1005, reason: '' });
  });

  const masked = (parts: FrameParts) => frame({ mask: NO_MASK, ...parts });
  const wrong: [string, number, Buffer][] = [
    ['reserved bits', 1002, masked({ opcode: Op.binary, reserved: 4 })],
    ['an unknown opcode', 1002, masked({ opcode: 3 })],
    ['an unknown control opcode', 1002, masked({ opcode: 11 })],
    ['no mask', 1002, frame({ opcode: Op.binary })],
    ['a fragmented ping', 1002, masked({ opcode: Op.ping, final: false })],
    ['a ping of 126 bytes', 1002, masked({ opcode: Op.ping, payload: Buffer.alloc(126) })],
    ['a continuation of nothing', 1002, masked({ opcode: Op.continuation })],
    [
      'a message within another',
      1002,
      Buffer.concat([masked({ opcode: Op.binary, final: false }), masked({ opcode: Op.text })]),
    ],
    ['half a close code', 1002, masked({ opcode: Op.close, payload: Buffer.of(3) })],
    [
      'a close code that is nobody’s to send',
      1002,
      masked({ opcode: Op.close, payload: closePayload(1006) }),
    ],
    ['a negative length', 1002, masked({ opcode: Op.binary, claims: 2n ** 63n })],
    ['a message over the limit', 1009, masked({ opcode: Op.binary, claims: 65_537n })],
    ['a huge message', 1009, masked({ opcode: Op.binary, claims: 2n ** 63n - 1n })],
    [
      'fragments over the limit together',
      1009,
      Buffer.concat([
        masked({ opcode: Op.binary, final: false, payload: Buffer.alloc(40_000) }),
        masked({ opcode: Op.continuation, claims: 25_537n }),
      ]),
    ],
  ];
  test.each(wrong)('ends the lane when it has %s, and is told why', async (_, closeCode, bytes) => {
    const { near, peer, reader } = await toRaw();
    peer.write(bytes);
    expect(await reader.rest()).toEqual(
      frame({ opcode: Op.close, payload: Buffer.of(closeCode >> 8, closeCode & 0xff) }),
    );
    peer.end();
    expect(await near.ended).toEqual({ code: 1006, reason: '' });
    expect(near.violations).toEqual([{ closeCode, message: expect.any(String) }]);
    expect(near.messages).toEqual([]);
    expect(near.failures).toEqual([]);
  });

  test('is refused by a client when it is masked', async () => {
    const { near, peer } = await toRaw({ role: 'client' });
    peer.write(frame({ opcode: Op.binary, mask: NO_MASK }));
    peer.on('end', () => peer.end());
    await near.until(() => true);
    peer.end();
    await near.ended;
    expect(near.violations).toMatchObject([{ closeCode: 1002 }]);
  });
});

describe('a lane', () => {
  test('sends clients’ frames with a mask of zeros and servers’ with none', async () => {
    for (const role of ['client', 'server'] as const) {
      const { near, reader } = await toRaw({ role });
      const payload = randomBytes(70_000);
      await Promise.all([near.send(payload), near.send(Buffer.from('text'), false)]);
      const mask = role === 'client' ? NO_MASK : undefined;
      const expected = Buffer.concat([
        frame({ opcode: Op.binary, payload, mask }),
        frame({ opcode: Op.text, payload: Buffer.from('text'), mask }),
      ]);
      expect((await reader.bytes(expected.length)).equals(expected)).toBe(true);
    }
  });

  test('whose messages are not recycled stops reading, and so the sender, and goes on where it stopped', async () => {
    const { near, peer } = await toRaw({ maxMessageBytes: 1_000_000, maxBuffers: 3 });
    const count = 40;
    for (let i = 0; i < count; i++) {
      peer.write(frame({ opcode: Op.binary, payload: Buffer.alloc(1_000_000, i), mask: NO_MASK }));
    }
    await near.until(() => near.lane.stalled);
    for (let taken = 0; taken < count; taken++) {
      await near.until(() => near.messages.length === Math.min(3, count - taken));
      // Only so much fits into the kernel's buffers; the rest waits at the sender.
      if (taken === 0) expect(peer.writableLength).toBeGreaterThan(10_000_000);
      expect(near.lane.allocatedBytes).toBe(3_000_000);
      const { content } = await near.take();
      expect(content.length === 1_000_000 && content[0] === taken && content[999_999] === taken).toBe(true);
    }
    expect(near.lane.stalled).toBe(false);
  });

  test('that is stalled can be closed: it drops what comes, and hears the answer', async () => {
    const { near, peer, reader } = await toRaw({ maxBuffers: 1 });
    for (let i = 0; i < 5; i++) {
      peer.write(frame({ opcode: Op.binary, payload: Buffer.alloc(60_000), mask: NO_MASK }));
    }
    await near.until(() => near.lane.stalled);
    near.lane.close(1001, 'enough');
    const told = frame({ opcode: Op.close, payload: closePayload(1001, 'enough') });
    expect(await reader.bytes(told.length)).toEqual(told);
    peer.write(frame({ opcode: Op.close, payload: closePayload(1001), mask: NO_MASK }));
    await reader.rest();
    peer.end();
    expect(await near.ended).toEqual({ code: 1001, reason: '' });
    expect(near.messages.length).toBe(1);
  });

  test('makes its buffers when they are needed', async () => {
    const { near, peer } = await toRaw({ maxBuffers: 8 });
    for (let i = 0; i < 20; i++) {
      peer.write(frame({ opcode: Op.binary, payload: Buffer.of(i), mask: NO_MASK }));
      expect((await near.take()).content).toEqual(Buffer.of(i));
    }
    expect(near.lane.allocatedBytes).toBeLessThanOrEqual(3 * 65_536);
  });

  test('tells the end of a peer that goes without a close frame', async () => {
    const { near, peer } = await toRaw();
    peer.end();
    expect(await near.ended).toEqual({ code: 1006, reason: '' });
    expect(near.failures).toEqual([]);
  });

  test('tells once that the connection was lost, and fails what was not sent', async () => {
    const { near, peer } = await toRaw();
    peer.pause();
    const sends = Array.from({ length: 40 }, () => near.send(Buffer.alloc(1_000_000)));
    const settled = Promise.allSettled(sends);
    peer.resetAndDestroy();
    expect(await near.ended).toEqual({ code: 1006, reason: '' });
    expect(near.failures).toHaveLength(1);
    expect(near.failures[0]).toMatchObject({ code: 'E_NATIVE_SYSTEM' });
    expect(['ECONNRESET', 'EPIPE']).toContain(near.failures[0]?.errno);
    expect((await settled).at(-1)).toMatchObject({ reason: { code: 'E_NATIVE_CLOSED' } });
    await expect(near.send(Buffer.of(1))).rejects.toMatchObject({ code: 'E_NATIVE_CLOSED' });
  });

  test('can be terminated while its writer is stuck, any number of times', async () => {
    const { near, peer } = await toRaw();
    peer.pause();
    const settled = Promise.allSettled(Array.from({ length: 40 }, () => near.send(Buffer.alloc(1_000_000))));
    near.lane.terminate();
    near.lane.terminate();
    expect(await near.ended).toEqual({ code: 1006, reason: '' });
    near.lane.terminate();
    near.lane.close();
    near.lane.ping();
    expect((await settled).at(-1)).toMatchObject({ status: 'rejected' });
    expect(near.failures).toEqual([]);
  });

  test('sends nothing after its close frame', async () => {
    const { near, reader } = await toRaw();
    near.lane.close(1000);
    near.lane.ping();
    await expect(near.send(Buffer.of(1))).rejects.toMatchObject({ code: 'E_NATIVE_CLOSED' });
    near.lane.terminate();
    const all = await reader.rest();
    const expected = frame({ opcode: Op.close, payload: closePayload(1000) });
    expect(expected.subarray(0, all.length)).toEqual(all);
  });

  test('takes a message back once, and only its own', async () => {
    const { near, peer } = await toRaw();
    peer.write(frame({ opcode: Op.binary, payload: Buffer.of(1), mask: NO_MASK }));
    await near.until(() => near.messages.length === 1);
    const { message } = near.messages[0]!;
    expect(() => near.lane.recycle(Buffer.alloc(8))).toThrow(
      expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }),
    );
    // A view into it will do.
    near.lane.recycle(message.subarray(1));
    expect(() => near.lane.recycle(message)).toThrow(expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }));
  });

  test('refuses what cannot be', async () => {
    const [near, far] = await tcpPair();
    const ignore = () => {};
    const handlers = {
      onMessage: ignore,
      onPing: ignore,
      onPong: ignore,
      onViolation: ignore,
      onFailure: ignore,
      onEnd: ignore,
    };
    const good = { fd: 0, role: 'client', maxMessageBytes: 10, maxBuffers: 1 } as const;
    const bad = [
      { fd: -1 },
      { fd: 0.5 },
      { maxMessageBytes: 0 },
      { maxMessageBytes: 2 ** 31 },
      { maxBuffers: 0 },
    ];
    for (const options of bad) {
      expect(() => new FrameLane({ ...good, ...options }, handlers), JSON.stringify(options)).toThrow(
        expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }),
      );
    }
    expect(() => new FrameLane({ ...good, fd: 1_000_000 }, handlers)).toThrow(
      expect.objectContaining({ code: 'E_NATIVE_SYSTEM', errno: 'EBADF' }),
    );
    const [lane, peer] = [new TestLane(near), far];
    expect(() => lane.lane.close(99)).toThrow(expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }));
    expect(() => lane.lane.close(1000, 'x'.repeat(124))).toThrow(
      expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }),
    );
    lane.lane.terminate();
    await lane.ended;
    peer.destroy();
  });
});

async function writeInPieces(socket: Socket, bytes: Buffer, sizes: readonly number[]): Promise<void> {
  let at = 0;
  for (const size of sizes) {
    if (at >= bytes.length) return;
    const piece = bytes.subarray(at, at + size);
    at += piece.length;
    await new Promise<void>((resolve) => socket.write(piece, () => resolve()));
  }
  if (at < bytes.length) socket.write(bytes.subarray(at));
}
