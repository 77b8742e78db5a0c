/** The host's wall clock, in milliseconds since the epoch, finer than Date.now gives it. */
let origin = performance.timeOrigin;

export function wallClockMs(): number {
  const fine = origin + performance.now();
  const coarse = Date.now();
  // Somebody set the clock, or it was slewed: Date.now is right to a millisecond, so follow it.
  if (fine < coarse - 1 || fine > coarse + 2) origin += coarse - fine;
  return origin + performance.now();
}
