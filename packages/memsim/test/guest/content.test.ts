import { deflateRawSync } from 'node:zlib';
import { PAGE_WORDS, PageContent } from '@vmferry/memsim/guest/content';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

const MIX = { zero: 0.25, text: 0.25, random: 0.25, duplicate: 0.25 };
const page = fc.nat(2 ** 28 - 1);
const generation = fc.nat(0xffff_ff00);

function bytesOf(content: PageContent, number: number, written: number): Buffer {
  const words = new Uint32Array(PAGE_WORDS).fill(0xdead_beef);
  content.fill(words, number, written);
  return Buffer.from(words.buffer);
}

test('a page is recognised as the generation that it is, at its place', () => {
  fc.assert(
    fc.property(fc.nat(), page, generation, (seed, number, written) => {
      const content = new PageContent(seed, MIX);
      expect(content.recognise(bytesOf(content, number, written), number)).toBe(written);
      expect(content.recognise(bytesOf(content, number, 0), number)).toBe(0);
    }),
  );
});

test('one bit that is not its own is found, wherever it is', () => {
  fc.assert(
    fc.property(page, fc.constantFrom(0, 1, 7), fc.nat(4095), fc.nat(7), (number, written, at, bit) => {
      const content = new PageContent(3, MIX);
      const bytes = bytesOf(content, number, written);
      bytes[at]! ^= 1 << bit;
      expect(content.recognise(bytes, number)).toBeUndefined();
    }),
  );
});

test('a page of another place or another guest is not taken for one’s own', () => {
  fc.assert(
    fc.property(page, page, fc.integer({ min: 1, max: 9 }), (number, other, written) => {
      fc.pre(number !== other);
      const content = new PageContent(3, MIX);
      const stranger = new PageContent(4, MIX);
      expect(content.recognise(bytesOf(content, other, written), number)).toBeUndefined();
      expect(content.recognise(bytesOf(stranger, number, written), number)).toBeUndefined();
    }),
  );
});

test('a page that says of itself that it is of no possible generation is nobody’s', () => {
  const content = new PageContent(3, MIX);
  const bytes = bytesOf(content, 1, 5);
  bytes.writeUInt32LE(0xffff_ffff, 8);
  expect(content.recognise(bytes, 1)).toBeUndefined();
});

test('an unaligned piece of a frame is recognised as well', () => {
  const content = new PageContent(3, MIX);
  const frame = Buffer.alloc(4096 + 13);
  bytesOf(content, 77, 5).copy(frame, 13);
  expect(content.recognise(frame.subarray(13), 77)).toBe(5);
});

test('at the start memory has the shares that were asked for, and each kind is what it says', () => {
  const only = (kind: keyof typeof MIX): PageContent =>
    new PageContent(5, { zero: 0, text: 0, random: 0, duplicate: 0, [kind]: 1 });
  const sample = (content: PageContent, written = 0): Buffer[] =>
    Array.from({ length: 256 }, (_, number) => bytesOf(content, number, written));
  const packed = (pages: readonly Buffer[]): number =>
    deflateRawSync(Buffer.concat([...pages]), { level: 1 }).length / (pages.length * 4096);
  const zero = Buffer.alloc(4096);
  expect(sample(only('zero')).every((bytes) => bytes.equals(zero))).toBe(true);
  expect(sample(only('zero'), 1).some((bytes) => bytes.equals(zero))).toBe(false);
  expect(packed(sample(only('random')))).toBeGreaterThan(0.97);
  expect(packed(sample(only('text')))).toBeGreaterThan(0.25);
  expect(packed(sample(only('text')))).toBeLessThan(0.6);
  expect(new Set(sample(only('duplicate')).map(String)).size).toBeLessThanOrEqual(64);
  expect(new Set(sample(only('duplicate'), 1).map(String)).size).toBe(256);
  const mixed = new PageContent(5, { zero: 0.4, text: 0.3, random: 0.2, duplicate: 0.1 });
  const zeroes = Array.from({ length: 20_000 }, (_, number) => mixed.isZero(number, 0)).filter(Boolean);
  expect(zeroes.length / 20_000).toBeCloseTo(0.4, 1);
});

test('a write changes a small part of a page, as programs do', () => {
  const content = new PageContent(5, { zero: 0, text: 0.5, random: 0.5, duplicate: 0 });
  const before = bytesOf(content, 9, 1);
  const after = bytesOf(content, 9, 2);
  const changed = before.filter((byte, at) => byte !== after[at]).length;
  expect(changed).toBeGreaterThan(50);
  expect(changed).toBeLessThan(400);
});
