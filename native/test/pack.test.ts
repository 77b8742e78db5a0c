import { randomFillSync } from 'node:crypto';
import {
  checksum,
  type Packed,
  type PackOptions,
  pack,
  type UnpackOptions,
  unpack,
} from '@vmferry/native/kernels';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { memoryLike, shared } from './arbitraries.ts';

const codec = fc.constantFrom('none' as const, 'lz4' as const, 'lz4hc' as const);

async function packed(src: Uint8Array, options: PackOptions) {
  const dst = new Uint8Array(src.length);
  const result = await pack(src, dst, options);
  return { payload: dst.slice(0, result.bytes), result };
}

function optionsOf(result: Packed, rawBytes: number): UnpackOptions {
  return { codec: result.codec, hi: result.hi, lo: result.lo, rawBytes };
}

/** `unpack` resolves, or fails as corrupt; anything else fails the test. */
async function corrupt(
  src: Uint8Array,
  dst: Uint8Array,
  options: UnpackOptions,
): Promise<string | undefined> {
  try {
    await unpack(src, dst, options);
    return undefined;
  } catch (error) {
    expect(error).toMatchObject({ name: 'NativeError', code: 'E_NATIVE_CORRUPT' });
    return (error as Error).message;
  }
}

describe('pack and unpack', () => {
  test('give back what went in, whatever it is', async () => {
    await fc.assert(
      fc.asyncProperty(memoryLike, codec, fc.boolean(), async (src, codec, onShared) => {
        const place = onShared ? shared : (bytes: Uint8Array) => bytes;
        const dst = place(new Uint8Array(src.length + 5));
        const result = await pack(place(src), dst, { codec });
        const payload = dst.slice(0, result.bytes);
        expect(checksum(payload)).toEqual({ hi: result.hi, lo: result.lo });

        const back = place(new Uint8Array(src.length + 7).fill(0xa5));
        await unpack(place(payload), back, optionsOf(result, src.length));
        expect(Buffer.compare(back.subarray(0, src.length), src)).toBe(0);
        // Not a byte beyond rawBytes is touched.
        expect([...back.subarray(src.length)]).toEqual(Array(7).fill(0xa5));
      }),
      { numRuns: 200 },
    );
  });

  test('compress only where that saves about 3 %, and copy verbatim otherwise', async () => {
    await fc.assert(
      fc.asyncProperty(memoryLike, codec, async (src, codec) => {
        const { payload, result } = await packed(src, { codec });
        if (codec === 'none') expect(result.codec).toBe('none');
        if (result.codec === 'lz4') expect(payload.length).toBeLessThan(src.length * 0.97 + 1);
        else expect(Buffer.compare(payload, src)).toBe(0);
      }),
    );
  });

  test('make zeros small and leave noise as it is', async () => {
    const zeros = await packed(new Uint8Array(262_144), { codec: 'lz4' });
    expect(zeros.result.codec).toBe('lz4');
    expect(zeros.payload.length).toBeLessThan(2000);
    for (const codec of ['lz4', 'lz4hc'] as const) {
      const noise = await packed(randomFillSync(new Uint8Array(262_144)), { codec });
      expect(noise.result).toMatchObject({ codec: 'none', bytes: 262_144 });
    }
  });

  test('lz4hc is no larger than lz4 on text', async () => {
    const words = Array.from({ length: 30_000 }, (_, i) => `page ${(i * 7919) % 4096} of block ${i % 13}`);
    const src = Buffer.from(words.join('\n'));
    const fast = await packed(src, { codec: 'lz4' });
    const slow = await packed(src, { codec: 'lz4hc' });
    expect(slow.result.codec).toBe('lz4');
    expect(slow.payload.length).toBeLessThanOrEqual(fast.payload.length);
  });

  test('trade size for speed by the acceleration, and give back what went in all the same', async () => {
    const words = Array.from({ length: 30_000 }, (_, i) => `page ${(i * 7919) % 4096} of block ${i % 13}`);
    const src = Buffer.from(words.join('\n'));
    const sizes: number[] = [];
    for (const acceleration of [1, 8, 40, 65_537]) {
      const { payload, result } = await packed(src, { codec: 'lz4', acceleration });
      const back = Buffer.alloc(src.length);
      await unpack(payload, back, optionsOf(result, src.length));
      expect(back.equals(src)).toBe(true);
      sizes.push(payload.length);
    }
    expect(sizes).toEqual([...sizes].sort((a, b) => a - b));
    expect(sizes[1]).toBeGreaterThan(sizes[0]!);
    expect((await packed(src, { codec: 'lz4' })).payload.length).toBe(sizes[0]);
    for (const acceleration of [0, -1, 1.5, 65_538, Number.NaN]) {
      const wrong = pack(src, Buffer.alloc(src.length), { codec: 'lz4', acceleration });
      await expect(wrong).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
    }
  });

  test('run many at once', async () => {
    const sources = Array.from({ length: 64 }, (_, i) => Buffer.alloc(65_536, `batch ${i} `));
    const all = await Promise.all(sources.map((src) => packed(src, { codec: 'lz4' })));
    const backs = await Promise.all(
      all.map(async ({ payload, result }) => {
        const back = Buffer.alloc(65_536);
        await unpack(payload, back, optionsOf(result, 65_536));
        return back;
      }),
    );
    backs.forEach((back, i) => {
      expect(back.equals(sources[i]!)).toBe(true);
    });
  });
});

describe('unpack of a damaged payload', () => {
  test('names the checksum when any byte changed', async () => {
    await fc.assert(
      fc.asyncProperty(
        memoryLike.filter((src) => src.length > 0),
        codec,
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        async (src, codec, where, flip) => {
          const { payload, result } = await packed(src, { codec });
          payload[where % payload.length]! ^= flip;
          const message = await corrupt(payload, new Uint8Array(src.length), optionsOf(result, src.length));
          expect(message).toMatch(/^checksum/);
        },
      ),
    );
  });

  test('is corrupt and never worse when the checksum was forged to fit', async () => {
    await fc.assert(
      fc.asyncProperty(memoryLike, fc.array(fc.tuple(fc.nat(), fc.nat(255))), async (src, changes) => {
        const { payload, result } = await packed(src, { codec: 'lz4' });
        for (const [where, byte] of changes) if (payload.length > 0) payload[where % payload.length] = byte;
        const dst = new Uint8Array(src.length + 64).fill(0xa5);
        await corrupt(payload, dst, { ...optionsOf(result, src.length), ...checksum(payload) });
        expect([...dst.subarray(src.length)]).toEqual(Array(64).fill(0xa5));
      }),
      { numRuns: 300 },
    );
  });

  test('is corrupt for arbitrary bytes, or else fills exactly rawBytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.nat(5000), async (src, rawBytes) => {
        const dst = new Uint8Array(rawBytes + 16).fill(0xa5);
        await corrupt(src, dst, { codec: 'lz4', rawBytes, ...checksum(src) });
        expect([...dst.subarray(rawBytes)]).toEqual(Array(16).fill(0xa5));
      }),
      { numRuns: 500 },
    );
  });

  test.each(['none', 'lz4'] as const)(
    'is corrupt when rawBytes is not the true length (%s)',
    async (codec) => {
      const src = Buffer.alloc(10_000, 'abc');
      const { payload, result } = await packed(src, { codec });
      expect(result.codec).toBe(codec);
      for (const rawBytes of [0, 1, 9_999, 10_001, 20_000]) {
        const message = await corrupt(payload, new Uint8Array(20_000), optionsOf(result, rawBytes));
        expect(message).toMatch(/^(length|lz4)/);
      }
    },
  );

  test('is corrupt when it was cut short, checksum forged or not', async () => {
    const src = Buffer.alloc(10_000, 'abc');
    const { payload, result } = await packed(src, { codec: 'lz4' });
    for (let length = 0; length < payload.length; length++) {
      const cut = payload.slice(0, length);
      const options = optionsOf(result, src.length);
      expect(await corrupt(cut, new Uint8Array(src.length), options)).toMatch(/^checksum/);
      const forged = { ...options, ...checksum(cut) };
      expect(await corrupt(cut, new Uint8Array(src.length), forged)).toBeDefined();
    }
  });
});

describe('wrong arguments', () => {
  const bytes = new Uint8Array(100);
  const fits: UnpackOptions = { codec: 'lz4', rawBytes: 100, hi: 0, lo: 0 };
  const bounds = { name: 'NativeError', code: 'E_NATIVE_BOUNDS' };

  test('are refused by pack before anything runs', async () => {
    await expect(pack(bytes, new Uint8Array(99), { codec: 'lz4' })).rejects.toMatchObject(bounds);
    await expect(pack('no' as never, bytes, { codec: 'lz4' })).rejects.toMatchObject(bounds);
    await expect(pack(bytes, new Float64Array(100) as never, { codec: 'lz4' })).rejects.toMatchObject(bounds);
    await expect(pack(bytes, new Uint8Array(100), { codec: 'gzip' as never })).rejects.toMatchObject(bounds);
    await expect(pack(bytes, new Uint8Array(100), { codec: 'toString' as never })).rejects.toMatchObject(
      bounds,
    );
  });

  test('are refused by unpack before anything runs', async () => {
    const dst = new Uint8Array(100);
    await expect(unpack(bytes, new Uint8Array(99), fits)).rejects.toMatchObject(bounds);
    for (const change of [
      { rawBytes: -1 },
      { rawBytes: 1.5 },
      { hi: 2 ** 32 },
      { lo: -1 },
      { codec: 'lz4hc' as never },
    ]) {
      await expect(unpack(bytes, dst, { ...fits, ...change })).rejects.toMatchObject(bounds);
    }
  });

  test('are refused where source and destination overlap', async () => {
    const memory = new Uint8Array(300);
    await expect(
      pack(memory.subarray(0, 100), memory.subarray(50, 250), { codec: 'lz4' }),
    ).rejects.toMatchObject(bounds);
    await expect(unpack(memory.subarray(99, 120), memory.subarray(0, 100), fits)).rejects.toMatchObject(
      bounds,
    );
  });
});
