import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  Codec,
  DEFAULT_FRAME_LIMITS,
  decodeFrame,
  encodeHeader,
  FrameFlag,
  type FrameHeader,
  FrameKind,
  frameAround,
  HEADER_BYTES,
  hashPayload,
  verifyPayload,
} from '../src/frame.ts';
import { wireErrorOf } from './support.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.maxSafeNat();

const header = fc.record({
  kind: fc.constantFrom(FrameKind.control, FrameKind.pages, FrameKind.opaque),
  flags: fc.constantFrom(0, FrameFlag.express),
  codec: fc.constantFrom(Codec.none, Codec.lz4),
  sequence: u53.filter((n) => n > 0),
  acknowledgement: u53,
  epoch: u32,
  round: u32,
  block: u32,
  count: fc.integer({ min: 0, max: DEFAULT_FRAME_LIMITS.maxCount }),
  rawBytes: fc.integer({ min: 0, max: DEFAULT_FRAME_LIMITS.maxRawBytes }),
});

/** An offset makes the message a view at any alignment, as the socket gives it. */
function messageOf(
  fields: Omit<FrameHeader, 'payloadBytes' | 'payloadHash'>,
  payload: Uint8Array,
  offset = 0,
) {
  const message = Buffer.alloc(offset + HEADER_BYTES + payload.length).subarray(offset);
  message.set(payload, HEADER_BYTES);
  encodeHeader(message, { ...fields, payloadBytes: payload.length, payloadHash: hashPayload(payload) });
  return message;
}

const sample: Omit<FrameHeader, 'payloadBytes' | 'payloadHash'> = {
  kind: FrameKind.pages,
  flags: 0,
  codec: Codec.lz4,
  sequence: 5_000_000_000,
  acknowledgement: 77,
  epoch: 3,
  round: 2,
  block: 1,
  count: 9,
  rawBytes: 36_864,
};

describe('a frame', () => {
  test('comes out of its encoding as it went in, at any alignment', () => {
    const alignment = fc.integer({ min: 0, max: 7 });
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 300 }), alignment, (fields, payload, offset) => {
        const frame = decodeFrame(messageOf(fields, payload, offset), DEFAULT_FRAME_LIMITS);
        expect(frame).toMatchObject({
          ...fields,
          payloadBytes: payload.length,
          frameBytes: HEADER_BYTES + payload.length,
        });
        expect(new Uint8Array(frame.payload)).toEqual(payload);
        verifyPayload(frame);
      }),
    );
  });

  test('shows every single flipped bit of its header', () => {
    const message = messageOf(sample, new Uint8Array(32).fill(5));
    for (let bit = 0; bit < HEADER_BYTES * 8; bit++) {
      const flipped = Uint8Array.from(message);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(['E_FRAME', 'E_VERSION']).toContain(
        wireErrorOf(() => decodeFrame(flipped, DEFAULT_FRAME_LIMITS)).code,
      );
    }
  });

  test('shows every single flipped bit of its payload', () => {
    const message = messageOf(sample, new Uint8Array(32).fill(5));
    for (let bit = HEADER_BYTES * 8; bit < message.length * 8; bit++) {
      const flipped = Uint8Array.from(message);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      const frame = decodeFrame(flipped, DEFAULT_FRAME_LIMITS);
      expect(wireErrorOf(() => verifyPayload(frame)).code).toBe('E_CHECKSUM');
    }
  });

  test('that is cut short anywhere is refused', () => {
    const message = messageOf(sample, new Uint8Array(100));
    for (let length = 0; length < message.length; length++) {
      const cut = message.subarray(0, length);
      expect(wireErrorOf(() => decodeFrame(cut, DEFAULT_FRAME_LIMITS)).code).toBe('E_FRAME');
    }
  });

  test('that is followed by anything is refused', () => {
    const message = Buffer.concat([messageOf(sample, new Uint8Array(100)), Buffer.alloc(1)]);
    expect(wireErrorOf(() => decodeFrame(message, DEFAULT_FRAME_LIMITS)).code).toBe('E_FRAME');
  });

  test('never crashes its reader, whatever the bytes are', () => {
    const garbage = fc.uint8Array({ maxLength: 400 });
    const nearly = fc.tuple(garbage, fc.boolean()).map(([bytes, begin]) => {
      if (begin) bytes.set(messageOf(sample, new Uint8Array()).subarray(0, Math.min(48, bytes.length)));
      return bytes;
    });
    fc.assert(
      fc.property(nearly, (bytes) => {
        expect(wireErrorOf(() => decodeFrame(bytes, DEFAULT_FRAME_LIMITS)).remedy).not.toBe('');
      }),
      { numRuns: 1000 },
    );
  });

  test('over a limit is refused by its name', () => {
    const limits = { maxFrameBytes: 1000, maxRawBytes: 2000, maxCount: 10 };
    const refuse = (fields: Partial<typeof sample>, payloadBytes = 0) =>
      wireErrorOf(() =>
        decodeFrame(messageOf({ ...sample, ...fields }, new Uint8Array(payloadBytes)), limits),
      );
    expect(refuse({ count: 11, rawBytes: 0 })).toMatchObject({ code: 'E_LIMIT' });
    expect(refuse({ count: 11, rawBytes: 0 }).message).toContain('count is 11');
    expect(refuse({ rawBytes: 2001 }).message).toContain('raw size is 2001');
    expect(refuse({ rawBytes: 0 }, 937).message).toContain('size is 1001');
    expect(
      decodeFrame(messageOf({ ...sample, rawBytes: 2000, count: 10 }, new Uint8Array(936)), limits),
    ).toBeDefined();
  });

  test('of an unknown kind, codec or flag is refused although its header is sound', () => {
    const refuse = (fields: object) =>
      wireErrorOf(() =>
        decodeFrame(
          messageOf({ ...sample, ...fields } as typeof sample, new Uint8Array()),
          DEFAULT_FRAME_LIMITS,
        ),
      );
    expect(refuse({ kind: 5 }).message).toContain('kind 5');
    expect(refuse({ kind: 0 }).message).toContain('kind 0');
    expect(refuse({ codec: 2 }).message).toContain('codec 2');
    expect(refuse({ flags: 2 }).message).toContain('flags');
  });

  test('has a number unless it is an acknowledgement or a control frame of the handshake', () => {
    const decode = (fields: Partial<typeof sample>, payload: Uint8Array = new Uint8Array()) =>
      decodeFrame(messageOf({ ...sample, ...fields }, payload), DEFAULT_FRAME_LIMITS);
    expect(decode({ kind: FrameKind.control, sequence: 0 }).sequence).toBe(0);
    expect(decode({ kind: FrameKind.ack, sequence: 0 }).acknowledgement).toBe(77);
    expect(wireErrorOf(() => decode({ sequence: 0 })).code).toBe('E_FRAME');
    expect(wireErrorOf(() => decode({ kind: FrameKind.ack, sequence: 1 })).code).toBe('E_FRAME');
    expect(wireErrorOf(() => decode({ kind: FrameKind.ack, sequence: 0 }, new Uint8Array(1))).code).toBe(
      'E_FRAME',
    );
  });

  test('is not encoded with numbers that do not fit', () => {
    const refuse = (fields: Partial<typeof sample>) =>
      wireErrorOf(() => messageOf({ ...sample, ...fields }, new Uint8Array())).code;
    expect(refuse({ sequence: 2 ** 53 })).toBe('E_LIMIT');
    expect(refuse({ acknowledgement: -1 })).toBe('E_LIMIT');
    expect(refuse({ block: 2 ** 32 })).toBe('E_LIMIT');
    expect(refuse({ round: 1.5 })).toBe('E_LIMIT');
    expect(refuse({ count: Number.NaN })).toBe('E_LIMIT');
  });

  test('with a sequence of 2^53 or more is refused', () => {
    const message = messageOf({ ...sample, sequence: Number.MAX_SAFE_INTEGER }, new Uint8Array());
    message.writeUInt32LE(0x0020_0000, 12);
    message.writeUInt32LE(0, 8);
    message.writeUInt32LE(hashPayload(message.subarray(0, 60)).lo, 60);
    expect(wireErrorOf(() => decodeFrame(message, DEFAULT_FRAME_LIMITS)).message).toContain('2^53');
  });

  test('around a payload is a sound one', () => {
    const outgoing = frameAround(FrameKind.opaque, Buffer.from('state'), 4);
    encodeHeader(outgoing.buffer, { ...outgoing, sequence: 1, acknowledgement: 0, payloadBytes: 5 });
    const frame = decodeFrame(outgoing.buffer, DEFAULT_FRAME_LIMITS);
    verifyPayload(frame);
    expect(frame).toMatchObject({ kind: FrameKind.opaque, epoch: 4, rawBytes: 5 });
    expect(Buffer.from(frame.payload).toString()).toBe('state');
  });

  test('is laid out on the wire as version 1 says, for ever', () => {
    const message = messageOf(sample, Buffer.from('abc'));
    expect(message.toString('hex').match(/.{1,32}/g)).toEqual([
      '564d46010201000000f2052a01000000',
      '4d000000000000000300000002000000',
      '01000000090000000090000003000000',
      // XXH3-64 of "abc" is 78af5f94892f3950.
      '945faf7850392f8900000000eea7f715',
      '616263',
    ]);
  });
});
