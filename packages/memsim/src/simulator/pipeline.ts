/**
 * What is between the hypervisors at any moment: batches that were read and packed ahead, and what is on its way.
 * The agents let both follow the link (`engine/carriage/batch-limits`, `wire/window`): some hundredths of a second's
 * worth, but never less than a few of the smallest batches, nor more than a few of the largest.
 */
import { PAGE_BYTES } from '@vmferry/engine/units';
import { loadOf } from './content.ts';
import type { Migration } from './migration.ts';

/** Four batches of the least size. */
const LEAST_BUFFERED_BYTES = 256 * 1024;
const LEAST_IN_FLIGHT_BYTES = 128 * 1024;

export interface Pipeline {
  /** Until all of it has arrived. */
  readonly ms: number;
  /** Of guest memory. */
  readonly bytes: number;
}

/** `sentBytes`: there is no more in it than was sent so far. */
export function pipelineOf(migration: Migration, codec: 'raw' | 'lz4', sentBytes: number): Pipeline {
  const { costs, link, conductor, now } = migration;
  const rate = link.rate(now, conductor.rateLimit);
  if (rate === 0) return { ms: 0, bytes: 0 };
  const packing = (bytes: number): number => {
    const content = loadOf(migration.simulation.guest.content, 0, Math.min(bytes, sentBytes) / PAGE_BYTES);
    return migration.speedOf(content, codec).tookMs;
  };
  const sending = (bytes: number): number => (Math.min(bytes, sentBytes) * 1000) / rate;
  const buffered = bounded(costs.bufferedMs, LEAST_BUFFERED_BYTES, costs.bufferedBytes, packing);
  const inFlight = bounded(costs.inFlightMs, LEAST_IN_FLIGHT_BYTES, costs.inFlightBytes, sending);
  const whole = Math.min(costs.bufferedBytes, sentBytes);
  const ms = buffered + inFlight;
  const bytesPerMs = whole === 0 ? 0 : whole / Math.max(0.001, packing(whole));
  return { ms, bytes: Math.min(sentBytes, ms * bytesPerMs) };
}

function bounded(ms: number, least: number, most: number, took: (bytes: number) => number): number {
  return Math.min(took(most), Math.max(ms, took(Math.min(least, most))));
}
