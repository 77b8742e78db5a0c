import { once } from 'node:events';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import {
  Codec,
  DEFAULT_FRAME_LIMITS,
  decodeFrame,
  encodeHeader,
  type Frame,
  FrameFlag,
  FrameKind,
  frameAround,
  HEADER_BYTES,
  hashPayload,
} from '../src/frame.ts';
import { Link, type LinkOptions } from '../src/link.ts';
import { RateLimiter } from '../src/rate-limiter.ts';
import { connectData } from '../src/socket.ts';
import {
  Inbox,
  linkPair,
  ManualClock,
  pagesFrame,
  rawServer,
  socketPair,
  type Transport,
  transports,
  wireErrorFrom,
  wireErrorOf,
} from './support.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** What the links of the present test go over. */
let transport: Transport = 'ws';
const over = (chosen: Transport) =>
  beforeEach(() => {
    transport = chosen;
    return () => {
      transport = 'ws';
    };
  });

async function pair(near: Partial<LinkOptions> = {}, far: Partial<LinkOptions> = {}) {
  const links = await linkPair(near, far, transport);
  cleanups.push(links.close);
  return links;
}

/** A link and the bare socket of its peer. */
async function linkToRaw(options: Partial<LinkOptions> = {}) {
  if (transport === 'lane') {
    const server = await rawServer();
    cleanups.push(server.close);
    const socket = await connectData(server.url, {});
    const link = new Link(socket, { name: 'near', onFrame: () => {}, ...options });
    return { link, raw: await server.next };
  }
  const sockets = await socketPair();
  cleanups.push(sockets.close);
  const link = new Link(sockets.client, { name: 'near', onFrame: () => {}, ...options });
  return { link, raw: sockets.server };
}

function rawFrame(sequence: number, acknowledgement = 0, payload = Buffer.from('x')): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + payload.length);
  payload.copy(message, HEADER_BYTES);
  encodeHeader(message, {
    ...pagesFrame(0),
    kind: FrameKind.opaque,
    sequence,
    acknowledgement,
    payloadBytes: payload.length,
    payloadHash: hashPayload(payload),
  });
  return message;
}

describe.each(transports)('a link, over %s', (chosen) => {
  over(chosen);

  test('delivers frames in the order of the calls, numbered from 1, with their fields', async () => {
    const inbox = new Inbox();
    const { near } = await pair({ window: { minBytes: 1024 * 1024 } }, { onFrame: inbox.onFrame });
    for (let i = 1; i <= 20; i++) {
      void near.send(
        pagesFrame(i * 1000, { block: i, round: 3, epoch: 2, count: 4, codec: Codec.lz4, rawBytes: 9 }),
      );
    }
    await inbox.has(20);
    expect(inbox.frames.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    expect(inbox.frames.map(({ block }) => block)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    expect(inbox.frames[4]).toMatchObject({ payloadBytes: 5000, round: 3, epoch: 2, count: 4, rawBytes: 9 });
    expect(near.lastSent).toBe(20);
  });

  test('keeps what is in flight within its window while the receiver is slow', async () => {
    const inbox = new Inbox();
    const size = 100_000;
    const window = { minBytes: 3 * (size + HEADER_BYTES), maxBytes: 3 * (size + HEADER_BYTES) };
    const { near, far } = await pair({ window }, { onFrame: inbox.onFrame });
    let taken = 0;
    const sends = Array.from({ length: 12 }, () =>
      near.send(pagesFrame(size)).then(() => {
        taken++;
      }),
    );
    for (let consumed = 0; consumed < 12; consumed++) {
      await inbox.has(Math.min(12, consumed + 3));
      // Everything the window admits has come, and the sender knows of nothing consumed beyond that.
      expect(near.bytesInFlight).toBeLessThanOrEqual(near.window);
      expect(taken).toBeLessThanOrEqual(consumed + 3);
      expect(inbox.frames.length).toBeLessThanOrEqual(consumed + 3);
      far.consumed(inbox.frames[consumed]!);
    }
    await Promise.all(sends);
    await near.drained();
    expect(near.bytesInFlight).toBe(0);
  });

  test('acknowledges only the contiguous beginning of what was consumed, in whatever order', async () => {
    const orders = fc.shuffledSubarray([1, 2, 3, 4, 5, 6], { minLength: 6 });
    await fc.assert(
      fc.asyncProperty(orders, async (order) => {
        const inbox = new Inbox();
        const { near, far, close } = await linkPair({}, { onFrame: inbox.onFrame }, transport);
        const released: number[] = [];
        for (let i = 1; i <= 6; i++) near.sendNow(pagesFrame(10, { release: () => released.push(i) }));
        await inbox.has(6);
        const consumed = new Set<number>();
        for (const sequence of order) {
          far.consumed(inbox.frames[sequence - 1]!);
          consumed.add(sequence);
          let prefix = 0;
          while (consumed.has(prefix + 1)) prefix++;
          // A frame carries the acknowledgement; when it has come, so has everything before it.
          const answer = pagesFrame(1);
          await far.send(answer);
          await far.drained();
          expect(released).toEqual(Array.from({ length: prefix }, (_, i) => i + 1));
        }
        await near.drained();
        await close();
      }),
      { numRuns: 10 },
    );
  });

  test('acknowledges many small frames with few messages', async () => {
    const { link, raw } = await linkToRaw({ onFrame: (frame, of) => of.consumed(frame) });
    const acks: Frame[] = [];
    const all = new Promise<void>((resolve) => {
      raw.on('message', (data: Buffer) => {
        const frame = decodeFrame(data, DEFAULT_FRAME_LIMITS);
        acks.push(frame);
        if (frame.acknowledgement === 1000) resolve();
      });
    });
    for (let sequence = 1; sequence <= 1000; sequence++) raw.send(rawFrame(sequence));
    await all;
    expect(acks.every(({ kind }) => kind === FrameKind.ack)).toBe(true);
    // A lane hands over no more at once than it has buffers.
    expect(acks.length).toBeLessThan(chosen === 'ws' ? 200 : 500);
    expect(link.lastReceived).toBe(1000);
  });

  test('releases every frame exactly once, whether it is acknowledged or the link ends', async () => {
    const inbox = new Inbox();
    const window = { minBytes: 50_000, maxBytes: 50_000 };
    const { near, far } = await pair({ window }, { onFrame: inbox.onFrame });
    const released = new Map<number, number>();
    const sends = Array.from({ length: 10 }, (_, i) =>
      near.send(pagesFrame(20_000, { release: () => released.set(i, (released.get(i) ?? 0) + 1) })).then(
        () => 'taken',
        (error: unknown) => (error as { code: string }).code,
      ),
    );
    await inbox.has(2);
    far.consumed(inbox.frames[0]!);
    await inbox.has(3);
    expect(released).toEqual(new Map([[0, 1]]));
    await near.close();
    expect(await Promise.all(sends)).toEqual(['taken', 'taken', 'taken', ...new Array(7).fill('E_CLOSED')]);
    expect([...released.entries()].sort(([a], [b]) => a - b)).toEqual(
      Array.from({ length: 10 }, (_, i) => [i, 1]),
    );
    const late = new Promise<void>((release) => {
      void wireErrorFrom(near.send(pagesFrame(1, { release })));
    });
    await late;
  });

  test('sends urgent frames past the window and past those that wait for it', async () => {
    const inbox = new Inbox();
    const window = { minBytes: 1000, maxBytes: 1000 };
    const { near, far } = await pair({ window }, { onFrame: inbox.onFrame });
    await near.send(pagesFrame(5000, { block: 1 }));
    const waiting = near.send(pagesFrame(5000, { block: 2 }));
    near.sendNow(pagesFrame(5000, { block: 3 }));
    await inbox.has(2);
    expect(inbox.frames.map(({ block }) => block)).toEqual([1, 3]);
    expect(near.bytesInFlight).toBe(2 * (5000 + HEADER_BYTES));
    for (const frame of inbox.frames) far.consumed(frame);
    await waiting;
    await inbox.has(3);
    expect(inbox.frames[2]).toMatchObject({ block: 2, sequence: 3 });
  });

  test('gives each direction its own numbers, and acknowledges on the frames that go anyway', async () => {
    const echoes = new Inbox();
    const { near, far } = await pair(
      {
        onFrame: (frame, link) => {
          link.consumed(frame);
          echoes.onFrame(frame);
        },
      },
      {
        onFrame: (frame, link) => {
          link.consumed(frame);
          void link.send(pagesFrame(100, { block: frame.block }));
        },
      },
    );
    for (let i = 0; i < 50; i++) await near.send(pagesFrame(1000, { block: i }));
    await echoes.has(50);
    expect(echoes.frames.map(({ block }) => block)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(echoes.frames.at(-1)?.acknowledgement).toBeGreaterThan(0);
    await Promise.all([near.drained(), far.drained()]);
  });

  test('measures what it moves', async () => {
    const { near, far } = await pair();
    for (let i = 0; i < 40; i++) await near.send(pagesFrame(200_000));
    await near.drained();
    expect(near.stats).toMatchObject({ framesSent: 40, bytesSent: 40 * 200_064, bytesReceived: 0 });
    expect(far.stats).toMatchObject({ framesReceived: 40, bytesReceived: 40 * 200_064, framesSent: 0 });
    expect(near.stats.rttMs).toBeGreaterThan(0);
    expect(near.stats.rateBytesPerSec).toBeGreaterThan(0);
  });

  test('holds to a rate limit that it shares with others', async () => {
    const clock = new ManualClock();
    const rateLimiter = new RateLimiter(1_000_000, clock);
    const inbox = new Inbox();
    const { near } = await pair({ rateLimiter, clock }, { onFrame: inbox.onFrame });
    await near.send(pagesFrame(100_000 - HEADER_BYTES));
    let taken = false;
    const second = near.send(pagesFrame(1000)).then(() => {
      taken = true;
    });
    await inbox.has(1);
    clock.advance(79);
    await new Promise(setImmediate);
    expect(taken).toBe(false);
    clock.advance(2);
    await second;
    await inbox.has(2);
  });

  test('keeps to what its peer takes', async () => {
    const { near } = await pair();
    near.keepTo({ maxFrameBytes: 10_000, windowBytes: 20_000 });
    expect(near.window).toBe(20_000);
    expect((await wireErrorFrom(near.send(pagesFrame(10_000)))).code).toBe('E_LIMIT');
    await near.send(pagesFrame(10_000 - HEADER_BYTES));
    await near.drained();
  });

  test('ends in an orderly way on both sides', async () => {
    const { near, far } = await pair();
    await near.send(pagesFrame(10));
    await near.drained();
    expect(await near.close()).toEqual({});
    expect(await far.closed).toEqual({});
    expect([near.state, far.state]).toEqual(['closed', 'closed']);
    expect((await wireErrorFrom(far.send(pagesFrame(1)))).code).toBe('E_CLOSED');
    expect(wireErrorOf(() => far.sendNow(pagesFrame(1))).code).toBe('E_CLOSED');
  });

  test('that loses its connection says so, and fails who waits for it', async () => {
    const { link, raw } = await linkToRaw();
    await link.send(pagesFrame(10));
    const drained = wireErrorFrom(link.drained());
    raw.terminate();
    expect((await link.closed).error).toMatchObject({ code: 'E_CLOSED' });
    expect((await drained).code).toBe('E_CLOSED');
  });
});

describe.each(transports)('a link drops a peer, over %s', (chosen) => {
  over(chosen);

  const violations: [string, string, (raw: WebSocket) => void][] = [
    ['that leaves a number out', 'E_SEQUENCE', (raw) => raw.send(rawFrame(2))],
    [
      'that repeats a number',
      'E_SEQUENCE',
      (raw) => {
        for (const sequence of [1, 1]) raw.send(rawFrame(sequence));
      },
    ],
    ['that acknowledges what was not sent', 'E_SEQUENCE', (raw) => raw.send(rawFrame(1, 1))],
    ['that sends text', 'E_FRAME', (raw) => raw.send('hello')],
    ['that sends no frame', 'E_FRAME', (raw) => raw.send(Buffer.alloc(100))],
    ['that sends nothing', 'E_FRAME', (raw) => raw.send(Buffer.alloc(0))],
    [
      'whose payload is not what it hashed',
      'E_CHECKSUM',
      (raw) => {
        const message = rawFrame(1);
        message[HEADER_BYTES]! ^= 1;
        raw.send(message);
      },
    ],
    [
      'that sends too large a message',
      'E_LIMIT',
      (raw) => raw.send(Buffer.alloc(DEFAULT_FRAME_LIMITS.maxFrameBytes + 1)),
    ],
  ];

  test.each(violations)('%s, with a clear error on both sides', async (_what, code, violate) => {
    const seen: Frame[] = [];
    const { link, raw } = await linkToRaw({ onFrame: (frame) => seen.push(frame) });
    const told = once(raw, 'close');
    violate(raw);
    const { error } = await link.closed;
    expect(error).toMatchObject({ code });
    expect(error?.remedy).not.toBe('');
    const [closeCode, reason] = (await told) as [number, Buffer];
    expect([1002, 1009]).toContain(closeCode);
    if (closeCode === 1002) expect(reason.toString()).toContain(code);
    expect(seen.length).toBeLessThanOrEqual(1);
  });

  test('that takes an acknowledgement back', async () => {
    const { link, raw } = await linkToRaw();
    for (let i = 0; i < 3; i++) await link.send(pagesFrame(10));
    raw.send(rawFrame(1, 2));
    raw.send(rawFrame(2, 1));
    expect((await link.closed).error).toMatchObject({ code: 'E_SEQUENCE' });
  });

  test('that sends more than it may before any of it is consumed', async () => {
    const { link, raw } = await linkToRaw({ receiveLimitBytes: 10_000 });
    for (let sequence = 1; sequence <= 12; sequence++) raw.send(rawFrame(sequence, 0, Buffer.alloc(1000)));
    expect((await link.closed).error).toMatchObject({ code: 'E_LIMIT' });
    expect(link.lastReceived).toBe(9);
  });

  test('whose frames the owner finds wrong', async () => {
    const { link, raw } = await linkToRaw({
      onFrame: () => {
        throw new Error('no such block');
      },
    });
    raw.send(rawFrame(1));
    expect((await link.closed).error?.message).toContain('no such block');
  });

  test('and looks at nothing that it still sends', async () => {
    const seen: Frame[] = [];
    const { link, raw } = await linkToRaw({ onFrame: (frame) => seen.push(frame) });
    raw.send(rawFrame(7));
    for (let sequence = 1; sequence < 10; sequence++) raw.send(rawFrame(sequence));
    await link.closed;
    expect(seen).toEqual([]);
  });

  test('after its name, which the other side can read', async () => {
    const { near, far } = await pair();
    const { WireError } = await import('../src/errors.ts');
    near.drop(new WireError('E_CHECKSUM', 'page ü'.repeat(60)));
    expect((await near.closed).error?.code).toBe('E_CHECKSUM');
    expect((await far.closed).error?.message).toMatch(/^the peer closed far: E_CHECKSUM: page ü/);
  });
});

describe.each(transports)('page frames, over %s', (chosen) => {
  over(chosen);

  const corrupt = (flags: number) => pagesFrame(100, { flags, payloadHash: { hi: 1, lo: 2 } });

  test('of the bulk lane are left to whoever unpacks them', async () => {
    const inbox = new Inbox();
    const { near, far } = await pair({}, { onFrame: inbox.onFrame });
    await near.send(corrupt(0));
    await inbox.has(1);
    expect(far.state).toBe('open');
  });

  test('of the express lane are verified at once', async () => {
    const { near, far } = await pair();
    await near.send(corrupt(FrameFlag.express));
    expect((await far.closed).error).toMatchObject({ code: 'E_CHECKSUM' });
  });
});

describe.each(transports)('consuming, over %s', (chosen) => {
  over(chosen);

  test('a frame twice, or one that never came, is refused', async () => {
    const inbox = new Inbox();
    const { near, far } = await pair({}, { onFrame: inbox.onFrame });
    await near.send(pagesFrame(1));
    await inbox.has(1);
    const frame = inbox.frames[0]!;
    far.consumed(frame);
    expect(wireErrorOf(() => far.consumed(frame)).code).toBe('E_SEQUENCE');
    expect(wireErrorOf(() => far.consumed({ ...frame, sequence: 2 })).code).toBe('E_SEQUENCE');
  });
});

describe('the heartbeat', () => {
  const heartbeat = { intervalMs: 5000, timeoutMs: 15_000 };

  test('finds a peer that has gone silent', async () => {
    const server = await rawServer();
    cleanups.push(server.close);
    const socket = new WebSocket(server.url);
    await once(socket, 'open');
    const clock = new ManualClock();
    const link = new Link(socket, { name: 'control', heartbeat, clock, onFrame: () => {} });
    // The peer's socket is paused: it takes nothing and answers nothing, and the connection stands.
    (await server.next).pause();
    for (let i = 0; i < 3; i++) clock.advance(5000);
    const { error } = await link.closed;
    expect(error).toMatchObject({ code: 'E_TIMEOUT' });
    expect(error?.message).toContain('15000 ms');
  });

  test('keeps a link open that has nothing to say', async () => {
    const sockets = await socketPair();
    cleanups.push(sockets.close);
    const clock = new ManualClock();
    const link = new Link(sockets.client, { name: 'control', heartbeat, clock, onFrame: () => {} });
    for (let i = 0; i < 10; i++) {
      const answered = once(sockets.client, 'pong');
      clock.advance(5000);
      await answered;
    }
    expect(link.state).toBe('open');
  });

  test('gives a peer another chance when this process itself stood still', async () => {
    const sockets = await socketPair();
    cleanups.push(sockets.close);
    let now = 0;
    const timers: (() => void)[] = [];
    const clock = {
      now: () => now,
      after: (_ms: number, action: () => void) => {
        timers.push(action);
        return () => {};
      },
    };
    const link = new Link(sockets.client, { name: 'control', heartbeat, clock, onFrame: () => {} });
    const answered = once(sockets.client, 'pong');
    now = 60_000;
    timers.shift()?.();
    expect(link.state).toBe('open');
    await answered;
    now = 65_000;
    timers.shift()?.();
    expect(link.state).toBe('open');
  });
});

describe.each(transports)('frames of the handshake, over %s', (chosen) => {
  over(chosen);

  test('have no number and are not acknowledged', async () => {
    const inbox = new Inbox();
    const { near } = await pair({}, { onFrame: inbox.onFrame });
    near.sendUnnumbered(frameAround(FrameKind.control, Buffer.from('hello')));
    await near.send(pagesFrame(1));
    await inbox.has(2);
    expect(inbox.frames.map(({ sequence }) => sequence)).toEqual([0, 1]);
    expect(near.bytesInFlight).toBe(HEADER_BYTES + 1);
  });
});
