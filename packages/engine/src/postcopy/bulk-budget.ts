/**
 * How much of the background may be in flight in post-copy. What is in flight delays the next fault's answer, so
 * there is nothing for a moment after a fault, and then twice as much after each such moment without one.
 */
const LEAST_IN_FLIGHT = 64 * 1024;
/**
 * More than this in the queues of a switch makes it drop packets, and a dropped answer to a fault, with
 * nothing sent behind it, waits for TCP's timer: a fifth of a second and more.
 */
export const MOST_IN_FLIGHT = 2 * 1024 * 1024;
/** None for such a time after a fault, then the budget doubles after each without one. */
export const QUIET_MS = 4;

/** Content bytes, for the time since the last fault in milliseconds (infinite before the first). */
export function bulkBudget(quietMs: number): number {
  if (quietMs < QUIET_MS) return 0;
  return Math.min(MOST_IN_FLIGHT, LEAST_IN_FLIGHT * 2 ** Math.min(16, quietMs / QUIET_MS));
}
