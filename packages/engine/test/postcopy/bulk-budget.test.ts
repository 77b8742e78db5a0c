import { expect, it } from 'vitest';
import { bulkBudget, MOST_IN_FLIGHT, QUIET_MS } from '../../src/postcopy/bulk-budget.ts';

it('nothing of the background is on its way right after a fault', () => {
  expect(bulkBudget(0)).toBe(0);
  expect(bulkBudget(QUIET_MS * 0.99)).toBe(0);
});

it('doubles as long as no fault comes, up to a bound', () => {
  expect(bulkBudget(2 * QUIET_MS)).toBe(2 * bulkBudget(QUIET_MS));
  expect(bulkBudget(1000)).toBe(MOST_IN_FLIGHT);
  expect(bulkBudget(Number.POSITIVE_INFINITY)).toBe(MOST_IN_FLIGHT);
});
