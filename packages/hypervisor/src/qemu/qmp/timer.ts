/** Calls `act` after that time, at most 24 days; never if it is longer. Returns what calls it off. */
export function after(timeoutMs: number, act: () => void): () => void {
  // A longer time would overflow the timer and fire at once.
  if (timeoutMs > 0x7fff_ffff) return () => {};
  const timer = setTimeout(act, timeoutMs);
  return () => clearTimeout(timer);
}

export function inWords(timeoutMs: number): string {
  return timeoutMs >= 1000 ? `${timeoutMs / 1000} s` : `${timeoutMs} ms`;
}
