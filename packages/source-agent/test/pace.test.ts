import { expect, test } from 'vitest';
import { Pace } from '../src/pace.ts';

test('the pace is what was delivered in a moment, told at its end', () => {
  const pace = new Pace();
  pace.delivered(50_000, 1000);
  expect(pace.delivered(50_000, 1020)).toBeUndefined();
  expect(pace.delivered(50_000, 1100)).toBe(1_000_000);
  expect(pace.delivered(0, 1150)).toBeUndefined();
  expect(pace.delivered(400_000, 1200)).toBe(4_000_000);
});

test('a lull is forgiven for two seconds, and then believed', () => {
  const pace = new Pace();
  pace.delivered(50_000, 0);
  pace.delivered(1_000_000, 100);
  const later = Array.from({ length: 25 }, (_, index) => pace.delivered(100_000, 200 + index * 100));
  expect(later.slice(0, 19)).toEqual(Array.from({ length: 19 }, () => 10_000_000));
  expect(later.slice(19)).toEqual(Array.from({ length: 6 }, () => 1_000_000));
});

test('the first delivery begins the first moment, however long it was in coming', () => {
  const pace = new Pace();
  expect(pace.delivered(256_000, 60_000)).toBeUndefined();
  expect(pace.delivered(25_000, 60_010)).toBeUndefined();
  expect(pace.delivered(25_000, 60_025)).toBe(2_000_000);
  expect(pace.delivered(100_000, 60_050)).toBeUndefined();
});
