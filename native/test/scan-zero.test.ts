import { scanZero, scanZeroAsync } from '@vmferry/native/kernels';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { shared } from './arbitraries.ts';

function model(src: Uint8Array, pageBytes: number): number[] {
  const flags: number[] = [];
  for (let at = 0; at < src.length; at += pageBytes) {
    flags.push(src.subarray(at, at + pageBytes).every((byte) => byte === 0) ? 1 : 0);
  }
  return flags;
}

const memory = fc
  .record({
    pageBytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(512, 4096, 4160)),
    pages: fc.nat(12),
    /** Bytes that are not zero: few, so that whole pages stay zero. */
    dirty: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 6 }),
  })
  .map(({ pageBytes, pages, dirty }) => {
    const src = new Uint8Array(pageBytes * pages);
    for (const [where, byte] of dirty) if (src.length > 0) src[where % src.length] = byte;
    return { pageBytes, src };
  });

describe('scanZero', () => {
  test('finds what a plain loop finds, on any page size, offset and thread', async () => {
    await fc.assert(
      fc.asyncProperty(memory, async ({ pageBytes, src }) => {
        const expected = model(src, pageBytes);
        const found = expected.filter((flag) => flag === 1).length;
        const out = new Uint8Array(expected.length + 2).fill(9);
        expect(scanZero(src, pageBytes, out)).toBe(found);
        expect([...out]).toEqual([...expected, 9, 9]);

        const sharedOut = shared(new Uint8Array(expected.length + 2).fill(9));
        expect(await scanZeroAsync(shared(src), pageBytes, sharedOut)).toBe(found);
        expect([...sharedOut]).toEqual([...expected, 9, 9]);
      }),
      { numRuns: 300 },
    );
  });

  test('sees a single bit anywhere in a page', () => {
    const page = new Uint8Array(4096);
    const out = new Uint8Array(1);
    for (let at = 0; at < page.length; at++) {
      page[at] = 1 << (at % 8);
      expect(scanZero(page, 4096, out)).toBe(0);
      page[at] = 0;
    }
    expect(scanZero(page, 4096, out)).toBe(1);
  });

  test('refuses partial pages, page size zero and a short output, on both threads', async () => {
    const bounds = { name: 'NativeError', code: 'E_NATIVE_BOUNDS' };
    const wrong: [Uint8Array, number, Uint8Array][] = [
      [new Uint8Array(4097), 4096, new Uint8Array(9)],
      [new Uint8Array(4096), 0, new Uint8Array(9)],
      [new Uint8Array(4096), Number.NaN, new Uint8Array(9)],
      [new Uint8Array(8192), 4096, new Uint8Array(1)],
      [new Uint8Array(8192), 4096, new Uint32Array(9) as never],
    ];
    for (const args of wrong) {
      expect(() => scanZero(...args)).toThrow(expect.objectContaining(bounds));
      await expect(scanZeroAsync(...args)).rejects.toMatchObject(bounds);
    }
  });
});
