/** When the rounds of an announcement are sent. */

import { AnnounceInputError } from '@vmferry/engine/guest-address';
import type { Millis } from '@vmferry/engine/units';

export interface AnnounceSchedule {
  /** Wait before the second round, in milliseconds. */
  readonly initialMs: number;
  /** What each further wait is longer by, in milliseconds. */
  readonly stepMs: number;
  /** No wait is longer, in milliseconds. */
  readonly maxMs: number;
  /** 5 to 100. */
  readonly rounds: number;
}

/** 0, 50, 200, 450, 800, 1250 and 1800 ms after the announcement: the last wait is the longest, 550 ms. */
export const defaultSchedule: AnnounceSchedule = { initialMs: 50, stepMs: 100, maxMs: 550, rounds: 7 };

const leastRounds = 5;
const mostRounds = 100;

/**
 * The wait before each round, in milliseconds; the first is 0, so its length is the number of rounds.
 * Throws `AnnounceInputError`.
 */
export function roundDelays(schedule: Partial<AnnounceSchedule> = {}): readonly Millis[] {
  const { initialMs, stepMs, maxMs, rounds } = { ...defaultSchedule, ...schedule };
  if (!Number.isInteger(rounds) || rounds < leastRounds || rounds > mostRounds) {
    throw new AnnounceInputError(
      `An announcement of ${rounds} rounds is not possible`,
      `Choose ${leastRounds} to ${mostRounds} rounds.`,
    );
  }
  for (const [name, value] of Object.entries({ initialMs, stepMs, maxMs })) {
    if (!Number.isFinite(value) || value < 0) {
      throw new AnnounceInputError(
        `The announcement's ${name} is ${value}`,
        'Give a number of milliseconds that is not negative.',
      );
    }
  }
  return Array.from({ length: rounds }, (_, round) => {
    return (round === 0 ? 0 : Math.min(initialMs + (round - 1) * stepMs, maxMs)) as Millis;
  });
}
