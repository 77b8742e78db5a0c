/** When packing is hasty: it takes half the time then, for a tenth more bytes and, of text, up to a third. Pure. */

/** The share of a window up to which its link has room. */
const ROOM_SHARE = 1 / 2;
/**
 * Bytes a second. A link slower than this is what holds up, even while little is on its way: in post-copy the budget
 * of the background sees to that.
 */
const SLOW_LINK = 40e6;

export interface LinkRoom {
  readonly bytesInFlight: number;
  readonly window: number;
  /** What the path was seen to carry; 0 while that is not known. */
  readonly pathBytesPerSec: number;
}

/** Packing holds up more than the link does. */
export function packsInHaste({ bytesInFlight, window, pathBytesPerSec }: LinkRoom): boolean {
  if (pathBytesPerSec > 0 && pathBytesPerSec < SLOW_LINK) return false;
  return bytesInFlight < window * ROOM_SHARE;
}
