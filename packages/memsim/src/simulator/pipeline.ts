/**
 * What is between the hypervisors at any moment: batches that were read and packed ahead, and what is on its way.
 * The agents let both follow the link (`engine/carriage/batch-limits`, `wire/window`): a batch is what goes over in
 * some milliseconds, so many of them are ahead, and so much is in flight. Where rounds are short, their batches are
 * small, and little is ahead. Nothing waits for a link that is faster than the hosts.
 */
import { pacedBatch, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { LANDING_MS } from '@vmferry/engine/policy/landing';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { type BulkCodec, type Load, loadOf } from './content.ts';
import type { Migration } from './migration.ts';

const LEAST_IN_FLIGHT_BYTES = 128 * 1024;
/** One batch, by `pacedBatch`. */
const BATCH_MS = 10;
/** Content of a round that is no bound on what is between them. */
const LONG_ROUND = 2 ** 50;
const LARGEST_BATCH = precopyBatch(Number.POSITIVE_INFINITY);

export interface Pipeline {
  /** Until all of it has arrived. */
  readonly ms: number;
  /** Of guest memory. */
  readonly bytes: number;
}

/** @param going what the link carries now, of a round that has more to send; without it, what all of memory holds */
export function pipelineOf(migration: Migration, codec: BulkCodec, going?: Load): Pipeline {
  const { costs, link, conductor, now } = migration;
  const rate = link.rate(now, conductor.rateLimit);
  if (rate === 0) return { ms: 0, bytes: 0 };
  const load = going ?? loadOf(migration.simulation.guest.content, 0, 1);
  const { tookMs, waitShare } = migration.speedOf(load, codec);
  if (load.rawPages === 0 || tookMs === 0) return { ms: 0, bytes: 0 };
  const bytesPerMs = (load.rawPages * PAGE_BYTES) / tookMs;
  const rounds = going ? [LONG_ROUND] : migration.recentRounds;
  const most = aheadBytes(rounds, bytesPerMs, costs.bufferedMs);
  const ahead = waitShare * Math.min(costs.bufferedBytes, most);
  const sent = rounds.reduce((sum, bytes) => sum + bytes, 0) - ahead;
  const leastMs = (LEAST_IN_FLIGHT_BYTES * 1000) / rate;
  const mostMs = (costs.inFlightBytes * 1000) / rate;
  const inFlightMs =
    waitShare * Math.min(mostMs, Math.max(costs.inFlightMs, leastMs), Math.max(0, sent / bytesPerMs));
  return { ms: ahead / bytesPerMs + inFlightMs, bytes: ahead + inFlightMs * bytesPerMs };
}

/** Where it is let arrive before the guest stops: how long that takes, and what is left, in milliseconds. */
export function landing(first: boolean, ms: number): { readonly landedMs: number; readonly aheadMs: number } {
  const landedMs = first ? Math.min(LANDING_MS, ms) : 0;
  return { landedMs, aheadMs: ms - landedMs };
}

/** Content of a batch. See `pipelineOf`. */
export function batchBytes(migration: Migration, codec: BulkCodec, going?: Load): number {
  const load = going ?? loadOf(migration.simulation.guest.content, 0, 1);
  const { tookMs } = migration.speedOf(load, codec);
  return tookMs > 0 ? batchAt((load.rawPages * PAGE_BYTES) / tookMs) : 0;
}

function batchAt(bytesPerMs: number): number {
  return pacedBatch(LARGEST_BATCH, bytesPerMs * 1000).rawPages * PAGE_BYTES;
}

/** Content of the last batches that were made; a round's last one holds what is left of it. */
function aheadBytes(rounds: readonly number[], bytesPerMs: number, bufferedMs: number): number {
  const batch = batchAt(bytesPerMs);
  let batches = bufferedMs / BATCH_MS;
  let ahead = 0;
  for (const bytes of rounds) {
    if (batches <= 0) break;
    const made = Math.ceil(bytes / batch);
    const taken = Math.min(made, batches);
    ahead += taken <= 0 ? 0 : Math.min(bytes, bytes - (made - 1) * batch + (taken - 1) * batch);
    batches -= made;
  }
  return Math.max(0, ahead);
}
