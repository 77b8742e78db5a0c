/** When rounds give way to post-copy, where post-copy was asked for. Pure. */
import { size } from './words.ts';

export interface HybridRound {
  /** Rounds that have ended, this one among them. */
  readonly rounds: number;
  readonly memoryBytes: number;
  /** What the next round would have to send. */
  readonly remainingBytes: number;
  /** The same at the end of the round before; absent for the first. */
  readonly previousBytes?: number | undefined;
  /** Guest bytes per second. 0 while unknown. */
  readonly bandwidthBytesPerSec: number;
}

/** Each page that a round saves is a fault saved, as long as rounds save many. */
const FALLS_TO = 0.5;
const MAX_ROUNDS = 5;
/** What the link carries in this time is soon there by post-copy as well. */
const SMALL_MS = 50;

/** Why post-copy is to start now, or undefined: another round first. */
export function postcopyNow(round: HybridRound): string | undefined {
  const { rounds, remainingBytes } = round;
  const left = `${size(remainingBytes)} are dirty after ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`;
  if (remainingBytes * 1000 <= round.bandwidthBytesPerSec * SMALL_MS)
    return `${left}: little is left to fault on.`;
  if (rounds >= MAX_ROUNDS) return `${left}: rounds have done their part.`;
  if (remainingBytes > (round.previousBytes ?? round.memoryBytes) * FALLS_TO) {
    return `${left}: another round would not save many faults.`;
  }
  return undefined;
}
