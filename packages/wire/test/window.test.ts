import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DEFAULT_WINDOW, InFlightWindow, type SendStamp } from '../src/window.ts';

interface Path {
  /** Of the narrowest link; changes with time. */
  readonly bytesPerMs: (now: number) => number;
  /** Both ways together, without queueing. */
  readonly delayMs: number | ((now: number) => number);
  /** The receiver needs so long for a frame, one after the other. */
  readonly consumeMs: number;
  readonly frameBytes: number;
  readonly forMs: number;
}

interface Outcome {
  readonly window: InFlightWindow;
  /** Of the last half of the time. */
  readonly bytesPerMs: number;
  /** The largest of the last half. */
  readonly inFlight: number;
}

/** A sender that always has something to send, over a path with one queue, in virtual time. */
function simulate(path: Path): Outcome {
  const window = new InFlightWindow();
  const flight: { stamp: SendStamp; ackedAt: number }[] = [];
  let now = 0;
  let linkFreeAt = 0;
  let consumerFreeAt = 0;
  let delivered = 0;
  let inFlight = 0;
  let waited = false;
  const delay = (at: number) => (typeof path.delayMs === 'number' ? path.delayMs : path.delayMs(at));
  while (now < path.forMs) {
    while (window.admits(path.frameBytes)) {
      const stamp = window.sent(path.frameBytes, now, waited);
      waited = false;
      linkFreeAt = Math.max(now, linkFreeAt) + path.frameBytes / path.bytesPerMs(now);
      consumerFreeAt = Math.max(consumerFreeAt, linkFreeAt + delay(now) / 2) + path.consumeMs;
      flight.push({ stamp, ackedAt: consumerFreeAt + delay(now) / 2 });
    }
    waited = true;
    if (now > path.forMs / 2) inFlight = Math.max(inFlight, window.bytesInFlight);
    const next = flight.shift()!;
    now = next.ackedAt;
    window.acknowledged(next.stamp, now);
    if (now > path.forMs / 2) delivered += path.frameBytes;
  }
  return { window, bytesPerMs: delivered / (path.forMs / 2), inFlight };
}

const gigabit = 125_000;
const frameBytes = 256 * 1024;

describe('the window', () => {
  test('settles near the bandwidth-delay product of 1 Gbit/s and 10 ms, and fills the link', () => {
    const product = gigabit * 10;
    const { window, bytesPerMs, inFlight } = simulate({
      bytesPerMs: () => gigabit,
      delayMs: 10,
      consumeMs: 0,
      frameBytes,
      forMs: 60_000,
    });
    expect(bytesPerMs).toBeGreaterThan(0.98 * gigabit);
    expect(window.rateBytesPerSec).toBeGreaterThan(0.95 * gigabit * 1000);
    expect(window.rateBytesPerSec).toBeLessThan(1.05 * gigabit * 1000);
    expect(window.leastRttMs).toBeGreaterThan(10);
    expect(window.leastRttMs).toBeLessThan(15);
    expect(inFlight).toBeLessThan(2 * product);
  });

  test('is there within a second', () => {
    const { bytesPerMs } = simulate({
      bytesPerMs: () => gigabit,
      delayMs: 10,
      consumeMs: 0,
      frameBytes,
      forMs: 1000,
    });
    expect(bytesPerMs).toBeGreaterThan(0.95 * gigabit);
  });

  test('does not starve a loopback that is faster than its receiver', () => {
    const consumeMs = 0.5;
    const { bytesPerMs } = simulate({
      bytesPerMs: () => 3_000_000,
      delayMs: 0.1,
      consumeMs,
      frameBytes,
      forMs: 2000,
    });
    expect(bytesPerMs).toBeGreaterThan(0.95 * (frameBytes / consumeMs));
  });

  test('follows a link that becomes slower, and one that becomes faster again', () => {
    const slower = (now: number) => (now < 2000 ? gigabit : gigabit / 10);
    const slow = simulate({ bytesPerMs: slower, delayMs: 40, consumeMs: 0, frameBytes, forMs: 30_000 });
    expect(slow.bytesPerMs).toBeGreaterThan(0.9 * (gigabit / 10));
    expect(slow.inFlight).toBeLessThan(2.5 * (gigabit / 10) * 40 + 2 * frameBytes);
    const faster = (now: number) => (now < 10_000 ? gigabit / 10 : gigabit);
    const fast = simulate({ bytesPerMs: faster, delayMs: 40, consumeMs: 0, frameBytes, forMs: 30_000 });
    expect(fast.bytesPerMs).toBeGreaterThan(0.9 * gigabit);
  });

  test('follows a round trip that becomes longer, which needs it to be measured again', () => {
    const delayMs = (now: number) => (now < 2000 ? 2 : 40);
    const { window, bytesPerMs } = simulate({
      bytesPerMs: () => gigabit,
      delayMs,
      consumeMs: 0,
      frameBytes,
      forMs: 60_000,
    });
    expect(window.leastRttMs).toBeGreaterThan(40);
    expect(bytesPerMs).toBeGreaterThan(0.9 * gigabit);
  });

  test('is not fooled by small frames, which are consumed sooner than large ones', () => {
    const window = new InFlightWindow();
    const small = window.sent(64, 0, false);
    window.acknowledged(small, 0.1);
    expect(window.leastRttMs).toBeCloseTo(0.1);
    const large = window.sent(frameBytes, 1, true);
    const later = window.sent(64, 2, true);
    window.acknowledged(large, 9);
    expect(window.leastRttMs).toBe(8);
    window.acknowledged(later, 9);
    window.acknowledged(window.sent(64, 10, false), 10.1);
    expect(window.leastRttMs).toBe(8);
  });

  test('keeps frames of one size flowing on any path, within its bounds', () => {
    fc.assert(
      fc.property(
        fc.record({
          mbit: fc.integer({ min: 10, max: 20_000 }),
          delayMs: fc.double({ min: 0.05, max: 60, noNaN: true }),
          consumeMs: fc.double({ min: 0, max: 1, noNaN: true }),
          frameBytes: fc.integer({ min: 4096, max: 1024 * 1024 }),
        }),
        ({ mbit, delayMs, consumeMs, frameBytes: size }) => {
          const rate = mbit * 125;
          const { bytesPerMs, inFlight } = simulate({
            bytesPerMs: () => rate,
            delayMs,
            consumeMs,
            frameBytes: size,
            forMs: 4000,
          });
          const path = Math.min(rate, consumeMs === 0 ? Number.POSITIVE_INFINITY : size / consumeMs);
          const roundTrip = delayMs + consumeMs + size / rate;
          const byWindow = (DEFAULT_WINDOW.maxBytes - size) / roundTrip;
          expect(bytesPerMs).toBeGreaterThan(0.8 * Math.min(path, byWindow));
          const floor = Math.min(DEFAULT_WINDOW.floorBytes, 1.1 * path * DEFAULT_WINDOW.floorMs);
          const bound = Math.max(DEFAULT_WINDOW.minBytes, floor, 2.5 * path * roundTrip) + 2 * size;
          expect(inFlight).toBeLessThanOrEqual(Math.min(DEFAULT_WINDOW.maxBytes, bound));
        },
      ),
      { numRuns: 40 },
    );
  });

  test('never goes beyond its bounds, whatever times and sizes it is told', () => {
    const step = fc.record({
      bytes: fc.integer({ min: 64, max: 4_000_000 }),
      waitMs: fc.double({ min: 0, max: 5000, noNaN: true }),
      acknowledge: fc.nat({ max: 4 }),
      waited: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const window = new InFlightWindow({ minBytes: 100_000, maxBytes: 1_000_000 });
        const flight: SendStamp[] = [];
        let now = 0;
        let bytes = 0;
        for (const { bytes: size, waitMs, acknowledge, waited } of steps) {
          flight.push(window.sent(size, now, waited));
          bytes += size;
          now += waitMs;
          for (const stamp of flight.splice(0, acknowledge)) {
            window.acknowledged(stamp, now);
            bytes -= stamp.bytes;
          }
          expect(window.size).toBeGreaterThanOrEqual(100_000);
          expect(window.size).toBeLessThanOrEqual(1_000_000);
          expect(window.bytesInFlight).toBe(bytes);
          expect(window.rateBytesPerSec).toBeGreaterThanOrEqual(0);
          expect(window.admits(1)).toBe(bytes === 0 || bytes + 1 <= window.size);
        }
      }),
    );
  });

  test('admits a frame that is larger than it when nothing else is in flight', () => {
    const window = new InFlightWindow({ minBytes: 1000, maxBytes: 1000 });
    expect(window.admits(5000)).toBe(true);
    const stamp = window.sent(5000, 0, false);
    expect(window.admits(1)).toBe(false);
    window.acknowledged(stamp, 1);
    expect(window.admits(5000)).toBe(true);
  });

  test('holds 20 ms of a path whose round trip is nothing, and no more than 2 MiB for that', () => {
    const standing = (rate: number) =>
      simulate({ bytesPerMs: () => rate, delayMs: 0, consumeMs: 0, frameBytes: 16 * 1024, forMs: 3000 })
        .window.size;
    expect(standing(3750)).toBe(DEFAULT_WINDOW.minBytes);
    expect(standing(20_000)).toBeGreaterThan(300_000);
    expect(standing(20_000)).toBeLessThan(500_000);
    expect(standing(10 * gigabit)).toBe(DEFAULT_WINDOW.floorBytes);
  });

  test('knows what the path carries from when it was the limit on', () => {
    const window = new InFlightWindow();
    window.acknowledged(window.sent(10_000, 0, false), 10);
    expect(window.rateBytesPerSec).toBeGreaterThan(0);
    expect(window.pathBytesPerSec).toBe(0);
    window.acknowledged(window.sent(1_000_000, 100, true), 110);
    expect(window.pathBytesPerSec).toBe(100_000_000);
    for (let now = 1000; now < 5000; now += 100) window.acknowledged(window.sent(4096, now, false), now + 10);
    expect(window.pathBytesPerSec).toBe(100_000_000);
  });

  test('forgets how large frames were, when they have become small', () => {
    const window = new InFlightWindow({ rttHorizonMs: 1000 });
    window.acknowledged(window.sent(2_000_000, 0, true), 100);
    expect(window.size).toBeGreaterThan(2_000_000);
    for (let now = 200; now < 6000; now += 100) window.acknowledged(window.sent(4096, now, true), now + 10);
    expect(window.size).toBe(DEFAULT_WINDOW.minBytes);
  });

  test('keeps below what the peer is willing to hold', () => {
    const window = new InFlightWindow();
    window.limit(100_000);
    expect(window.size).toBe(100_000);
  });
});
