import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StreamError } from '../../src/qemu/stream/error.ts';
import { type Reply, ReturnPathDecoder, ReturnPathEncoder } from '../../src/qemu/stream/return-path.ts';
import { named, u16, u32, u64 } from './support/stream/model.ts';
import { cut } from './support/stream/told.ts';

interface Message {
  readonly bytes: Buffer;
  readonly told: unknown;
}

function message(type: number, payload: Buffer): Buffer {
  return Buffer.concat([u16(type), u16(payload.length), payload]);
}

function value(type: number, name: string): fc.Arbitrary<Message> {
  return fc.nat(2 ** 32 - 1).map((n) => {
    const bytes = message(type, u32(n));
    return { bytes, told: { type: name, value: n, bytes: bytes.toString('hex') } };
  });
}

const start = fc.nat(2 ** 40).map((n) => n * 4096);
const blockName = fc.string({ minLength: 1, maxLength: 255, unit: 'grapheme-ascii' });

const namedRequest = fc.record({ start, length: fc.nat(2 ** 32 - 1), blockName }).map((request): Message => {
  const payload = Buffer.concat([u64(request.start), u32(request.length), named(request.blockName)]);
  return { bytes: message(3, payload), told: { type: 'request-pages', ...request } };
});

const carried = fc
  .tuple(fc.integer({ min: 8, max: 0xffff }), fc.uint8Array({ maxLength: 300 }))
  .map(([type, payload]): Message => {
    const bytes = message(type, Buffer.from(payload));
    return { bytes, told: { type: 'carried', bytes: bytes.toString('hex') } };
  });

const anyMessage = fc.oneof(
  value(1, 'shut'),
  value(2, 'pong'),
  value(6, 'resume-ack'),
  fc.constant({ bytes: message(7, Buffer.alloc(0)), told: { type: 'switchover-ack', bytes: '00070000' } }),
  namedRequest,
  carried,
);
const cuts = fc.array(fc.nat(2 ** 16), { maxLength: 40 });

function read(decoder: ReturnPathDecoder, chunks: readonly Uint8Array[]): Reply[] {
  return chunks.flatMap((chunk) => decoder.push(chunk));
}

function plain(replies: readonly Reply[]): unknown[] {
  return replies.map((reply) =>
    'bytes' in reply ? { ...reply, bytes: Buffer.from(reply.bytes).toString('hex') } : reply,
  );
}

describe('the return path decoder', () => {
  it('tells what was written, wherever the input is cut', () => {
    fc.assert(
      fc.property(fc.array(anyMessage, { maxLength: 20 }), cuts, (messages, places) => {
        const decoder = new ReturnPathDecoder();
        const bytes = Buffer.concat(messages.map((one) => one.bytes));
        expect(plain(read(decoder, cut(bytes, places)))).toEqual(messages.map((one) => one.told));
        expect(decoder.finish()).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('takes a request without a name for the block of the one before', () => {
    const bytes = Buffer.concat([
      message(3, Buffer.concat([u64(4096), u32(4096), named('pc.ram')])),
      message(4, Buffer.concat([u64(8192), u32(4096)])),
    ]);
    expect(new ReturnPathDecoder().push(bytes)).toEqual([
      { type: 'request-pages', blockName: 'pc.ram', start: 4096, length: 4096 },
      { type: 'request-pages', blockName: 'pc.ram', start: 8192, length: 4096 },
    ]);
  });

  it('carries the bitmap that follows its announcement, and finds the next message behind it', () => {
    const bitmap = Buffer.alloc(100_000, 5);
    const announcement = message(5, named('pc.ram'));
    const follows = Buffer.concat([u64(bitmap.length), bitmap, Buffer.from('0123456789abcdef', 'hex')]);
    const bytes = Buffer.concat([announcement, follows, message(6, u32(1))]);
    fc.assert(
      fc.property(fc.array(fc.nat(2 ** 17), { maxLength: 20 }), (places) => {
        const replies = read(new ReturnPathDecoder(), cut(bytes, places));
        expect(replies[0]).toMatchObject({ type: 'recv-bitmap', blockName: 'pc.ram' });
        expect(replies.at(-1)).toMatchObject({ type: 'resume-ack', value: 1 });
        const between = replies
          .slice(1, -1)
          .map((reply) => ('bytes' in reply ? reply.bytes : Buffer.alloc(0)));
        expect(Buffer.concat(between).equals(follows)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it('refuses what breaks the protocol, and never hangs on anything', () => {
    const broken: [Buffer, RegExp][] = [
      [message(0, Buffer.alloc(0)), /type 0/],
      [message(1, Buffer.alloc(3)), /carries 3 bytes/],
      [message(4, Buffer.alloc(12)), /names no block/],
      [message(3, Buffer.alloc(13)), /too short/],
      [
        message(3, Buffer.concat([u64(0), u32(1), Buffer.from([9]), Buffer.from('short')])),
        /carries 18 bytes/,
      ],
      [Buffer.concat([message(5, named('x')), Buffer.alloc(8, 0xff)]), /not sane/],
      [Buffer.concat([message(5, named('x')), u64(0), u64(0)]), /without its mark/],
    ];
    for (const [bytes, why] of broken) expect(() => new ReturnPathDecoder().push(bytes)).toThrow(why);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), cuts, (bytes, places) => {
        try {
          read(new ReturnPathDecoder(), cut(bytes, places));
        } catch (error) {
          expect(error).toBeInstanceOf(StreamError);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('knows when the input ends within a message', () => {
    const decoder = new ReturnPathDecoder();
    decoder.push(message(2, u32(1)).subarray(0, 6));
    expect(decoder.finish()).toBe(false);
  });
});

describe('the return path encoder', () => {
  it('writes requests, pongs and shut as the decoder reads them', () => {
    const requests = fc.array(
      fc.record({
        blockName: fc.constantFrom('pc.ram', 'vga.vram'),
        start,
        length: fc.integer({ min: 1, max: 2 ** 20 }),
      }),
      { minLength: 1, maxLength: 10 },
    );
    fc.assert(
      fc.property(requests, fc.nat(2 ** 32 - 1), (wanted, n) => {
        const encoder = new ReturnPathEncoder();
        const bytes = [
          ...wanted.map((one) => encoder.requestPages(one.blockName, one.start, one.length)),
          encoder.pong(n),
          encoder.shut(n),
        ];
        expect(plain(new ReturnPathDecoder().push(Buffer.concat(bytes)))).toMatchObject([
          ...wanted.map((one) => ({ type: 'request-pages', ...one })),
          { type: 'pong', value: n },
          { type: 'shut', value: n },
        ]);
      }),
      { numRuns: 100 },
    );
  });

  it('names the block only where it changes', () => {
    const encoder = new ReturnPathEncoder();
    const types = ['a', 'a', 'b', 'b'].map((name) => encoder.requestPages(name, 0, 4096)[1]);
    expect(types).toEqual([3, 4, 3, 4]);
  });

  it.each(['all', 'none'] as const)('has %s of a block, and a bit to spare up to whole words', (which) => {
    fc.assert(
      fc.property(blockName, fc.integer({ min: 1, max: 5000 }), (name, pageCount) => {
        const bitmap = Buffer.alloc(8 * Math.ceil(pageCount / 64), which === 'all' ? 0xff : 0);
        const end = Buffer.from('0123456789abcdef', 'hex');
        expect(Buffer.from(new ReturnPathEncoder().pagesHere(which, name, pageCount))).toEqual(
          Buffer.concat([message(5, named(name)), u64(bitmap.length), bitmap, end]),
        );
      }),
      { numRuns: 100 },
    );
  });

  it('agrees to go on', () => {
    expect(new ReturnPathDecoder().push(new ReturnPathEncoder().resumeAck())).toMatchObject([
      { type: 'resume-ack', value: 1 },
    ]);
  });

  it('cuts requests that 32 bits cannot hold into several', () => {
    const replies = new ReturnPathDecoder().push(
      new ReturnPathEncoder().requestPages('ram', 4096, 10 * 2 ** 30),
    );
    const ranges = replies.map((reply) =>
      reply.type === 'request-pages' ? [reply.start, reply.length] : [],
    );
    expect(ranges.reduce((sum, [, length]) => sum + length!, 0)).toBe(10 * 2 ** 30);
    expect(ranges[1]![0]).toBe(4096 + ranges[0]![1]!);
  });
});
