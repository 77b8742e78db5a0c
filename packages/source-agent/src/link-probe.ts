/** What the link to a destination agent carries, measured for a moment. No guest is named, and none is touched. */
import { randomBytes } from 'node:crypto';
import { MAX_PROBE_BYTES } from '@vmferry/wire/messages';
import { Destination, type DestinationOptions } from './destination.ts';

const ROUND_TRIPS = 8;
const FIRST_BYTES = 1024 * 1024;
/** A step that takes this long has told enough, and no step sends more than so much. */
const ENOUGH_MS = 300;
const MOST_BYTES = 64 * 1024 * 1024;
const ANSWER_TIMEOUT_MS = 60_000;

export interface LinkMeasurement {
  readonly roundTripMs: number;
  /** Undefined for an agent of an earlier version, which knows no probe. */
  readonly bytesPerSec: number | undefined;
}

/** Rejects with `WireError` or `PeerError`. */
export async function measureLink(options: DestinationOptions): Promise<LinkMeasurement> {
  const destination = await Destination.connect(options);
  try {
    const roundTripMs = await roundTrip(destination);
    if (!destination.features.includes('probe')) return { roundTripMs, bytesPerSec: undefined };
    return { roundTripMs, bytesPerSec: await bandwidth(destination, roundTripMs) };
  } finally {
    await destination.close();
  }
}

/** The shortest of some: what was longer waited for something else. */
async function roundTrip(destination: Destination): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let sample = 0; sample < ROUND_TRIPS; sample += 1) {
    const began = performance.now();
    await destination.readClock();
    least = Math.min(least, performance.now() - began);
  }
  return least;
}

/** In steps that double, so that a slow link is not held up for long and a fast one gets to its speed. */
async function bandwidth({ control }: Destination, roundTripMs: number): Promise<number> {
  // Nothing on the way makes less of random bytes.
  const noise = randomBytes(MAX_PROBE_BYTES);
  for (let bytes = FIRST_BYTES; ; bytes *= 2) {
    const began = performance.now();
    const answered = control.expect('probed', ANSWER_TIMEOUT_MS);
    for (let sent = 0; sent < bytes; sent += noise.length)
      await control.sendInOrder({ type: 'probe', bytes: noise, last: sent + noise.length >= bytes });
    await answered;
    const tookMs = performance.now() - began - roundTripMs;
    if (tookMs >= ENOUGH_MS || bytes >= MOST_BYTES) return (bytes * 1000) / Math.max(1, tookMs);
  }
}
