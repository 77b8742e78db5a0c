/**
 * How much of the background may be in flight in post-copy. What is in flight delays the next fault's answer, so
 * there is nothing for a moment after a fault, and then twice as much after each such moment without one. The
 * moment is twice what an answer takes: a guest in a burst of faults asks again as soon as it has been answered.
 *
 * A guest whose faults never cease would keep the background from ever going on, and so from ending them. After a
 * while without any, it gets a share of the link whatever comes: see `starvedGrant`.
 */
import { PACKED_SHARE } from './prepaging.ts';

const LEAST_IN_FLIGHT = 64 * 1024;
/**
 * More than this in the queues of a switch makes it drop packets, and a dropped answer to a fault, with
 * nothing sent behind it, waits for TCP's timer: a fifth of a second and more.
 */
export const MOST_IN_FLIGHT = 2 * 1024 * 1024;
/** And no more than the link carries in such a time, for a fault may come after a long quiet too. */
const MOST_IN_FLIGHT_MS = 40;
/** The moment, where answers take no time. */
export const QUIET_MS = 4;
const MOST_QUIET_MS = 100;

/**
 * So long has a guest just arrived. Between its first faults it computes more than ever again (an emulator translates
 * all of its code anew), and where hosts have few CPUs, packing and unpacking the background take them from it: only a
 * guest that wants nothing for longer than it computes between two faults is let wait for them.
 */
export const ARRIVAL_MS = 400;
const ARRIVAL_QUIET_MS = 50;

/** So long is a burst of faults given way to later on. */
export const STARVED_MS = 250;
/** From then on something goes this often, */
export const GRANT_EVERY_MS = 16;
/** and so much of the link's time, which is what a fault may have to wait more. */
const GRANT_MS = 4;

/** Content bytes that go although faults come, each time. 0 stands for an unknown rate. */
export function starvedGrant(linkBytesPerSec: number): number {
  return Math.max(LEAST_IN_FLIGHT, (linkBytesPerSec * GRANT_MS) / 1000 / PACKED_SHARE);
}

export interface BulkConditions {
  /** How long answers take of late, from the fault's arrival until the destination has the page; 0 if unknown. */
  readonly answerMs?: number;
  /** 0 if unknown. */
  readonly linkBytesPerSec?: number;
  /** How long the guest has run on the destination. */
  readonly arrivedMs?: number;
}

/** Content bytes, for the time since the last fault in milliseconds (infinite before the first). */
export function bulkBudget(quietMs: number, conditions: BulkConditions = {}): number {
  const { answerMs = 0, linkBytesPerSec = 0, arrivedMs = Number.POSITIVE_INFINITY } = conditions;
  const least = arrivedMs < ARRIVAL_MS ? ARRIVAL_QUIET_MS : QUIET_MS;
  const moment = Math.min(MOST_QUIET_MS, Math.max(least, 2 * answerMs));
  if (quietMs < moment) return 0;
  const carried = linkBytesPerSec === 0 ? MOST_IN_FLIGHT : (linkBytesPerSec * MOST_IN_FLIGHT_MS) / 1000;
  const most = Math.min(MOST_IN_FLIGHT, Math.max(LEAST_IN_FLIGHT, carried));
  return Math.min(most, LEAST_IN_FLIGHT * 2 ** Math.min(16, quietMs / moment));
}
