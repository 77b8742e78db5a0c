import {
  decodeOpaque,
  digestOf,
  encodeHello,
  encodeMissing,
  encodeState,
  registersOf,
} from '@vmferry/memsim/guest/device-state';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

const shape = { pages: 4096, vcpus: 2, streams: 3 };
const state = {
  registers: registersOf(7),
  positions: Float64Array.of(12.5, 1, 2, 3, 2 ** 52, 4, 5, 6),
  chains: Uint32Array.of(1, 2, 3, 4, 5, 0xffff_ffff),
};

test('device state arrives bit for bit, with the digest of what was sent', () => {
  const decoded = decodeOpaque(encodeState(state), shape);
  expect(decoded).toEqual({ kind: 'state', state: { ...state, digest: new Uint8Array(digestOf(state)) } });
});

test('one bit that changes on the way makes another digest', () => {
  fc.assert(
    fc.property(fc.nat(encodeState(state).length - 32 - 12 - 1), fc.nat(7), (at, bit) => {
      const bytes = Uint8Array.from(encodeState(state));
      bytes[12 + at]! ^= 1 << bit;
      const decoded = decodeOpaque(bytes, shape);
      if (decoded.kind !== 'state') throw new Error(decoded.kind);
      expect(Buffer.from(digestOf(decoded.state)).equals(decoded.state.digest)).toBe(false);
    }),
  );
});

test('missing pages arrive as the same set, in as many messages as it takes', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(4095), fc.integer({ min: 1, max: 300 })), { maxLength: 30 }),
      (ranges) => {
        const bits = new Uint32Array(128);
        const missing = new Set<number>();
        for (const [first, count] of ranges) {
          for (let page = first; page < Math.min(4096, first + count); page += 1) {
            missing.add(page);
            bits[page >>> 5]! |= 1 << (page & 31);
          }
        }
        const arrived: number[] = [];
        for (const message of encodeMissing(bits)) {
          const decoded = decodeOpaque(message, shape);
          if (decoded.kind !== 'missing') throw new Error(decoded.kind);
          for (const [first, count] of decoded.ranges) {
            for (let page = first; page < first + count; page += 1) arrived.push(page);
          }
        }
        expect(arrived).toEqual([...missing].sort((a, b) => a - b));
      },
    ),
  );
});

test('the messages about missing pages stay small when every other page is missing', () => {
  const bits = new Uint32Array(128 * 1024).fill(0x5555_5555);
  const messages = [...encodeMissing(bits)];
  expect(messages.length).toBe(128);
  expect(Math.max(...messages.map(({ length }) => length))).toBeLessThan(256 * 1024);
});

test('a hello tells the shape and the fingerprint', () => {
  const fingerprint = 'ab'.repeat(32);
  expect(decodeOpaque(encodeHello(shape, fingerprint), shape)).toEqual({ kind: 'hello', shape, fingerprint });
});

test('bytes of a peer never do more than fail with E_STREAM', () => {
  const start = encodeState(state).subarray(0, 8);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.constantFrom(0, 1, 2, 3, 4, 9), (rest, kind) => {
      const bytes = Buffer.concat([start, rest]);
      bytes.writeUInt32LE(kind, 4);
      try {
        decodeOpaque(bytes, shape);
      } catch (error) {
        expect(error).toMatchObject({ code: 'E_STREAM', name: 'GuestError' });
      }
    }),
  );
  expect(() => decodeOpaque(Buffer.from('nonsense'), shape)).toThrow(/none of ours/);
  const beyond = [...encodeMissing(Uint32Array.of(0, 0xffff_ffff))][0]!;
  expect(() => decodeOpaque(beyond, { ...shape, pages: 63 })).toThrow(/32 pages from 32 on/);
});
