import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ClockOffset, downtimeAcross } from '../../src/clock/offset.ts';
import { millis } from '../../src/units.ts';

const sample = (local: number, offset: number, out: number, back: number, think = 1) => ({
  t0: millis(local),
  t1: millis(local + out + offset),
  t2: millis(local + out + think + offset),
  t3: millis(local + out + think + back),
});

describe('the clock offset', () => {
  it('is unknown before the first sample', () => {
    expect(new ClockOffset().estimate(millis(0))).toBeUndefined();
  });

  it('is taken from the sample with the shortest round trip', () => {
    const clock = new ClockOffset();
    clock.add(sample(0, 500, 40, 2));
    clock.add(sample(100, 500, 1, 1));
    clock.add(sample(200, 500, 3, 30));
    expect(clock.estimate(millis(200))).toMatchObject({ offsetMs: 500, rttMs: 2 });
  });

  it('lies within the stated uncertainty of the truth, however uneven the ways are', () => {
    const ways = fc.array(fc.tuple(fc.nat(200), fc.nat(200)), { minLength: 1, maxLength: 100 });
    fc.assert(
      fc.property(ways, fc.integer({ min: -1e9, max: 1e9 }), (list, offset) => {
        const clock = new ClockOffset();
        let now = 1e6;
        for (const [out, back] of list) {
          clock.add(sample(now, offset, out, back));
          now += 1000;
        }
        const { offsetMs, uncertaintyMs } = clock.estimate(millis(now))!;
        expect(Math.abs(offsetMs - offset)).toBeLessThanOrEqual(uncertaintyMs);
      }),
    );
  });

  it('becomes less certain with age, and a fresher sample takes over in time', () => {
    const clock = new ClockOffset();
    clock.add(sample(0, 10, 1, 1));
    const fresh = clock.estimate(millis(3))!.uncertaintyMs;
    expect(clock.estimate(millis(100_003))!.uncertaintyMs).toBeCloseTo(fresh + 5);
    clock.add(sample(100_000, 10, 2, 2));
    expect(clock.estimate(millis(100_003))!.rttMs).toBe(4);
  });

  it('starts over when a clock was set', () => {
    const clock = new ClockOffset();
    clock.add(sample(0, 10, 1, 1));
    clock.add(sample(1000, 5000, 5, 5));
    expect(clock.steps).toBe(1);
    expect(clock.estimate(millis(1000))!.offsetMs).toBe(5000);
  });

  it('refuses a sample that cannot be', () => {
    const clock = new ClockOffset();
    expect(clock.add({ t0: millis(10), t1: millis(0), t2: millis(50), t3: millis(20) })).toBe(false);
    expect(clock.add({ t0: millis(10), t1: millis(0), t2: millis(0), t3: millis(Number.NaN) })).toBe(false);
    expect(clock.estimate(millis(0))).toBeUndefined();
  });
});

describe('a downtime across two clocks', () => {
  const estimate = { offsetMs: millis(1000), uncertaintyMs: millis(2), rttMs: millis(4) };

  it('is corrected by the offset and states its uncertainty', () => {
    expect(downtimeAcross(millis(500), millis(1620), estimate)).toEqual({
      downtimeMs: 120,
      uncertaintyMs: 2,
    });
  });

  it('is never negative, and its uncertainty covers what is missing', () => {
    expect(downtimeAcross(millis(500), millis(1490), estimate)).toEqual({ downtimeMs: 0, uncertaintyMs: 10 });
  });
});
