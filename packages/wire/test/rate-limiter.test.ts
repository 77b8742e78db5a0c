import { describe, expect, test } from 'vitest';
import { RateLimiter } from '../src/rate-limiter.ts';
import { ManualClock } from './support.ts';

/** Sends frames as fast as the limiter lets it; tells how many bytes have passed. */
function greedy(limiter: RateLimiter, frameBytes: number): () => number {
  let passed = 0;
  const go = () => {
    for (let i = 0; i < 1000; i++) {
      if (!limiter.tryTake(frameBytes)) {
        limiter.whenOpen(go);
        return;
      }
      passed += frameBytes;
    }
  };
  go();
  return () => passed;
}

describe('the rate limiter', () => {
  test('holds the rate in the long run, also with frames larger than its burst', () => {
    for (const frameBytes of [1000, 1_000_000]) {
      const clock = new ManualClock();
      const passed = greedy(new RateLimiter(10_000_000, clock), frameBytes);
      clock.advance(10_000);
      expect(passed()).toBeGreaterThan(99_000_000);
      expect(passed()).toBeLessThan(102_000_000);
    }
  });

  test('shares the rate fairly among those who ask', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter(10_000_000, clock);
    const shares = [1, 2, 3].map(() => greedy(limiter, 300_000));
    clock.advance(10_000);
    for (const share of shares) expect(share()).toBeGreaterThan(30_000_000);
  });

  test('lets everything pass without a limit, and from when it is lifted', () => {
    const clock = new ManualClock();
    const free = new RateLimiter(0, clock);
    expect(greedy(free, 1_000_000)()).toBe(1_000_000_000);
    const limiter = new RateLimiter(1000, clock);
    const passed = greedy(limiter, 1_000_000);
    const before = passed();
    limiter.setRate(0);
    expect(passed()).toBeGreaterThan(before + 500_000_000);
  });

  test('does not make up for a pause', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter(1_000_000, clock);
    clock.advance(60_000);
    const passed = greedy(limiter, 1000);
    expect(passed()).toBeLessThanOrEqual(21_000);
  });

  test('counts what passed without asking', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter(1_000_000, clock);
    limiter.charge(1_020_000);
    expect(limiter.tryTake(1)).toBe(false);
    clock.advance(999);
    expect(limiter.tryTake(1)).toBe(false);
    clock.advance(2);
    expect(limiter.tryTake(1)).toBe(true);
  });

  test('refuses a rate that is none', () => {
    expect(() => new RateLimiter(1, new ManualClock()).setRate(-1)).toThrow(RangeError);
    expect(() => new RateLimiter(1, new ManualClock()).setRate(Number.NaN)).toThrow(RangeError);
  });
});
