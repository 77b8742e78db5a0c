import { expect, it } from 'vitest';
import {
  ARRIVAL_MS,
  bulkBudget,
  GRANT_EVERY_MS,
  MOST_IN_FLIGHT,
  QUIET_MS,
  starvedGrant,
} from '../../src/postcopy/bulk-budget.ts';
import { PACKED_SHARE } from '../../src/postcopy/prepaging.ts';

it('nothing of the background is on its way right after a fault', () => {
  expect(bulkBudget(0)).toBe(0);
  expect(bulkBudget(QUIET_MS * 0.99)).toBe(0);
});

it('doubles as long as no fault comes, up to a bound', () => {
  expect(bulkBudget(2 * QUIET_MS)).toBe(2 * bulkBudget(QUIET_MS));
  expect(bulkBudget(1000)).toBe(MOST_IN_FLIGHT);
  expect(bulkBudget(Number.POSITIVE_INFINITY)).toBe(MOST_IN_FLIGHT);
});

it('is less on a slow link, and waits longer where answers take long', () => {
  expect(bulkBudget(1000, { linkBytesPerSec: 6.25e6 })).toBe(250_000);
  expect(bulkBudget(1000, { linkBytesPerSec: 1e6 })).toBe(64 * 1024);
  expect(bulkBudget(19, { answerMs: 10 })).toBe(0);
  expect(bulkBudget(20, { answerMs: 10 })).toBeGreaterThan(0);
  expect(bulkBudget(100, { answerMs: 10_000 })).toBeGreaterThan(0);
});

it('is granted a quarter of the link when faults never cease', () => {
  // Packed to half, and so often that it comes to 4 of 16 ms.
  expect(starvedGrant(125e6)).toBe(1e6);
  expect(starvedGrant(0)).toBe(64 * 1024);
  expect((starvedGrant(125e6) * PACKED_SHARE) / ((125e6 * GRANT_EVERY_MS) / 1000)).toBe(0.25);
});

it('is nothing in the pauses of a guest that has just arrived, and comes when it wants nothing for long', () => {
  expect(bulkBudget(40, { arrivedMs: 100 })).toBe(0);
  expect(bulkBudget(60, { arrivedMs: 100 })).toBeGreaterThan(0);
  expect(bulkBudget(40, { arrivedMs: ARRIVAL_MS })).toBeGreaterThan(0);
});
