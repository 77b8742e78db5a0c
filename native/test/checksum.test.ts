import { checksum, checksumAsync, checksumInto, hash128, verify } from '@vmferry/native/kernels';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { pageBytes, shared } from './arbitraries.ts';

/** The buffer of xxHash's own sanity check: https://github.com/Cyan4973/xxHash/blob/v0.8.1/cli/xsum_sanity_check.c */
function sanityBuffer(length: number): Uint8Array {
  const prime32 = 2654435761n;
  const prime64 = 11400714785074694797n;
  const bytes = new Uint8Array(length);
  let state = prime32;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(state >> 56n);
    state = BigInt.asUintN(64, state * prime64);
  }
  return bytes;
}

// prime64 of the sanity check is no safe integer, so its seeded vectors are not reachable; these are of seed 0.
const vectors: readonly [length: number, hi: number, lo: number][] = [
  [0, 0x2d068005, 0x38d394c2],
  [1, 0xc44bdff4, 0x074eecdb],
  [6, 0x27b56a84, 0xcd2d7325],
  [12, 0xa713daf0, 0xdfbb77e7],
  [24, 0xa3fe70bf, 0x9d3510eb],
  [48, 0x397da259, 0xecba1f11],
  [80, 0xbcdefbbb, 0x2c47c90a],
  [195, 0xcd94217e, 0xe362ec3a],
  [403, 0xcdeb804d, 0x65c6dea4],
  [512, 0x617e4959, 0x9013cb6b],
  [2048, 0xdd59e2c3, 0xa5f038e0],
  [2240, 0x6e73a905, 0x39cf2948],
  [2367, 0xcb37aeb9, 0xe5d361ed],
];

describe('checksum', () => {
  test.each(vectors)('of the first %i bytes is the one that xxHash itself expects', (length, hi, lo) => {
    expect(checksum(sanityBuffer(length))).toEqual({ hi, lo });
  });

  test('depends on the seed, all 53 bits of it', () => {
    const bytes = sanityBuffer(100);
    const sums = [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER].map((seed) => checksum(bytes, seed));
    expect(new Set(sums.map(({ hi, lo }) => `${hi} ${lo}`)).size).toBe(4);
  });

  test('is the same into an array, on shared memory and at any offset', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.maxSafeNat(), (bytes, seed) => {
        const out = new Uint32Array(2);
        checksumInto(shared(bytes), seed, out);
        const { hi, lo } = checksum(bytes, seed);
        expect([...out]).toEqual([hi, lo]);
      }),
    );
  });

  test('is the same on a pool thread', async () => {
    for (const length of [0, 1, 100, 300_000]) {
      const bytes = shared(sanityBuffer(length));
      expect(await checksumAsync(bytes)).toEqual(checksum(bytes));
    }
    await expect(checksumAsync('text' as unknown as Uint8Array)).rejects.toMatchObject({
      code: 'E_NATIVE_BOUNDS',
    });
  });

  test('refuses what is no byte array, no seed and no place for the result', () => {
    const bounds = expect.objectContaining({ name: 'NativeError', code: 'E_NATIVE_BOUNDS' });
    expect(() => checksum(new Uint16Array(2) as never)).toThrow(bounds);
    expect(() => checksum('text' as never)).toThrow(bounds);
    for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) {
      expect(() => checksum(new Uint8Array(1), seed)).toThrow(bounds);
    }
    expect(() => checksumInto(new Uint8Array(1), 0, new Uint32Array(1))).toThrow(bounds);
  });
});

describe('hash128', () => {
  test('is equal exactly where pages are equal', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(5), { maxLength: 40 }), fc.boolean(), async (numbers, onShared) => {
        const plain = new Uint8Array(numbers.length * pageBytes);
        numbers.forEach((number, page) => {
          // One bit makes the difference, anywhere in the page.
          if (number > 0) plain[page * pageBytes + number * 700] = 1 << number;
        });
        const out = new Uint32Array(numbers.length * 4);
        await hash128(onShared ? shared(plain) : plain, pageBytes, out);
        const hashes = numbers.map((_, page) => out.subarray(page * 4, page * 4 + 4).join(' '));
        const byNumber = new Map(numbers.map((number, page) => [number, hashes[page]]));
        expect(hashes).toEqual(numbers.map((number) => byNumber.get(number)));
        expect(new Set(hashes).size).toBe(new Set(numbers).size);
      }),
    );
  });

  test('of one empty-seeded vector is the one that xxHash itself expects', async () => {
    const out = new Uint32Array(4);
    await hash128(sanityBuffer(512), 512, out);
    expect([...out]).toEqual([0x18d2d110, 0xdcc9bca1, 0x617e4959, 0x9013cb6b]);
  });

  test('leaves the words beyond its pages alone', async () => {
    const out = new Uint32Array(12).fill(7);
    await hash128(new Uint8Array(2 * pageBytes), pageBytes, out);
    expect([...out.subarray(8)]).toEqual([7, 7, 7, 7]);
  });

  test('refuses partial pages and a short output', async () => {
    const bounds = { name: 'NativeError', code: 'E_NATIVE_BOUNDS' };
    await expect(hash128(new Uint8Array(5000), pageBytes, new Uint32Array(8))).rejects.toMatchObject(bounds);
    await expect(hash128(new Uint8Array(8192), pageBytes, new Uint32Array(7))).rejects.toMatchObject(bounds);
    await expect(hash128(new Uint8Array(0), 0, new Uint32Array(7))).rejects.toMatchObject(bounds);
  });
});

describe('verify', () => {
  test('agrees with the checksum, and with no other', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), fc.nat(63), async (bytes, bit) => {
        const { hi, lo } = checksum(bytes);
        await verify(shared(bytes), { hi, lo });
        const other =
          bit < 32 ? { hi: (hi ^ (1 << bit)) >>> 0, lo } : { hi, lo: (lo ^ (1 << (bit - 32))) >>> 0 };
        await expect(verify(bytes, other)).rejects.toMatchObject({
          code: 'E_NATIVE_CORRUPT',
          message: expect.stringMatching(/^checksum/),
        });
      }),
    );
  });

  test('refuses what is no byte array and no checksum', async () => {
    const wrong: [unknown, unknown][] = [
      ['bytes', { hi: 0, lo: 0 }],
      [new Uint8Array(1), { hi: 2 ** 32, lo: 0 }],
      [new Uint8Array(1), { hi: 0, lo: -1 }],
    ];
    for (const [bytes, sum] of wrong) {
      await expect(verify(bytes as never, sum as never)).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
    }
  });
});
