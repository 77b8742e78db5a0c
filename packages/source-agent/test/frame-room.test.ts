import { BATCH_PAYLOAD_BYTES } from '@vmferry/engine/carriage/batch-limits';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameRoom } from '../src/frame-room.ts';

const MiB = 2 ** 20;

describe('the room of frames', () => {
  test('is never exceeded but by one alone, and goes out in the order of the asking', async () => {
    const max = 16 * MiB;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 20 * MiB }), fc.boolean()), { maxLength: 30 }),
        async (requests) => {
          const room = new FrameRoom(max);
          const lent: number[] = [];
          const order: number[] = [];
          const all = requests.map(async ([bytes], index) => {
            lent.push(await room.take(bytes));
            order.push(index);
          });
          for (const [, give] of requests) {
            await Promise.resolve();
            expect(room.held <= max || lent.length === 1).toBe(true);
            expect(lent.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThanOrEqual(room.held);
            if (give && lent.length > 0) room.give(lent.shift()!);
          }
          while (order.length < requests.length) {
            await new Promise(setImmediate);
            room.give(lent.shift()!);
          }
          await Promise.all(all);
          expect(order).toEqual(requests.map((_, index) => index));
        },
      ),
    );
  });

  test('lends the same buffers again, small ones for small frames', async () => {
    const room = new FrameRoom(16 * MiB);
    for (const bytes of [1000, BATCH_PAYLOAD_BYTES]) {
      const buffer = await room.lend(bytes);
      expect(buffer.length).toBeGreaterThanOrEqual(bytes);
      expect(room.held).toBe(buffer.length);
      room.takeBack(buffer);
      expect(await room.lend(bytes)).toBe(buffer);
      room.takeBack(buffer);
    }
    expect((await room.lend(1000)).length).toBeLessThan(MiB);
    const huge = await room.lend(12 * MiB);
    expect(huge.length).toBe(12 * MiB);
    room.takeBack(huge);
  });

  test('refuses who waits when it closes, and whoever comes later', async () => {
    const room = new FrameRoom(0);
    const held = await room.take(100 * MiB);
    const waiting = room.take(1);
    room.close();
    await expect(waiting).rejects.toThrow(/closed/);
    await expect(room.lend(1)).rejects.toThrow(/closed/);
    room.give(held);
    expect(room.held).toBe(0);
  });
});
