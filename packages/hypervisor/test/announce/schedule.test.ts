import { AnnounceInputError } from '@vmferry/engine/guest-address';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { roundDelays } from '../../src/announce/schedule.ts';

describe('roundDelays', () => {
  it('starts at once and grows from 50 ms to 550 ms within two seconds', () => {
    const delays = roundDelays();
    expect(delays).toEqual([0, 50, 150, 250, 350, 450, 550]);
    expect(delays.reduce<number>((sum, each) => sum + each, 0)).toBeLessThanOrEqual(2000);
  });

  it('stays at the longest wait once it is reached', () => {
    expect(roundDelays({ initialMs: 10, stepMs: 30, maxMs: 50, rounds: 6 })).toEqual([0, 10, 40, 50, 50, 50]);
  });

  it('never shrinks a wait, never passes the longest and always starts with 0', () => {
    const ms = fc.nat({ max: 10_000 });
    fc.assert(
      fc.property(ms, ms, ms, fc.integer({ min: 5, max: 100 }), (initialMs, stepMs, maxMs, rounds) => {
        const delays = roundDelays({ initialMs, stepMs, maxMs, rounds });
        expect(delays).toHaveLength(rounds);
        expect(delays[0]).toBe(0);
        expect(delays.every((delay, i) => delay <= maxMs && delay >= (delays[i - 1] ?? 0))).toBe(true);
      }),
    );
  });

  it.each([
    { rounds: 4 },
    { rounds: 101 },
    { rounds: 5.5 },
    { initialMs: -1 },
    { stepMs: Number.NaN },
    { maxMs: Number.POSITIVE_INFINITY },
  ])('refuses %j', (schedule) => {
    expect(() => roundDelays(schedule)).toThrow(AnnounceInputError);
  });
});
