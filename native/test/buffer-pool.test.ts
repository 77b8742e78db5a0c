import { BufferPool, type PooledBuffer } from '@vmferry/native/buffer-pool';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const closed = { name: 'NativeError', code: 'E_NATIVE_CLOSED' };
const released = expect.objectContaining(closed);

describe('a buffer pool', () => {
  test('never lends more than its bound and serves those who wait in order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.constantFrom('acquire', 'try', 'release'), { maxLength: 60 }),
        async (maxBuffers, actions) => {
          const pool = new BufferPool({ bufferBytes: 64, maxBuffers });
          const lent: PooledBuffer[] = [];
          const served: number[] = [];
          let asked = 0;
          for (const action of actions) {
            if (action === 'acquire') {
              const number = asked++;
              void pool.acquire().then((buffer) => {
                served.push(number);
                lent.push(buffer);
              });
            } else if (action === 'try') {
              const buffer = pool.tryAcquire();
              // Nobody overtakes those who wait.
              if (pool.waiting > 0) expect(buffer).toBeUndefined();
              if (buffer !== undefined) lent.push(buffer);
            } else {
              lent.shift()?.release();
            }
            await Promise.resolve();
            expect(pool.inUse).toBe(lent.length);
            expect(pool.inUse).toBeLessThanOrEqual(maxBuffers);
            expect(pool.allocatedBytes).toBeLessThanOrEqual(maxBuffers * 64);
            expect(pool.waiting).toBe(asked - served.length);
            if (pool.waiting > 0) expect(pool.inUse).toBe(maxBuffers);
            expect(new Set(lent.map(({ bytes }) => bytes.buffer)).size).toBe(lent.length);
          }
          expect(served).toEqual(served.toSorted((a, b) => a - b));
        },
      ),
    );
  });

  test('uses buffers again and makes them of the size asked for', () => {
    const pool = new BufferPool({ bufferBytes: 4096, maxBuffers: 2 });
    const first = pool.tryAcquire()!;
    const { bytes } = first;
    expect(bytes.length).toBe(4096);
    first.release();
    expect(pool.tryAcquire()?.bytes).toBe(bytes);
    expect(pool.allocatedBytes).toBe(4096);
  });

  test('refuses a second release and the bytes after the first', () => {
    const pool = new BufferPool({ bufferBytes: 8, maxBuffers: 1 });
    const buffer = pool.tryAcquire()!;
    buffer.release();
    expect(() => buffer.release()).toThrow(released);
    expect(() => buffer.bytes).toThrow(released);
    expect(pool.inUse).toBe(0);
  });

  test('rejects those who wait when it is closed, and takes back what was lent', async () => {
    const pool = new BufferPool({ bufferBytes: 8, maxBuffers: 1 });
    const lent = await pool.acquire();
    const waits = [pool.acquire(), pool.acquire()];
    pool.close();
    pool.close();
    for (const wait of waits) await expect(wait).rejects.toMatchObject(closed);
    await expect(pool.acquire()).rejects.toMatchObject(closed);
    expect(() => pool.tryAcquire()).toThrow(released);
    expect(lent.bytes.length).toBe(8);
    lent.release();
    expect(pool).toMatchObject({ inUse: 0, waiting: 0, allocatedBytes: 0 });
  });

  test('refuses sizes that are no positive whole numbers', () => {
    const bounds = expect.objectContaining({ code: 'E_NATIVE_BOUNDS' });
    for (const size of [0, -1, 1.5, Number.NaN]) {
      expect(() => new BufferPool({ bufferBytes: size, maxBuffers: 1 })).toThrow(bounds);
      expect(() => new BufferPool({ bufferBytes: 1, maxBuffers: size })).toThrow(bounds);
    }
  });
});
