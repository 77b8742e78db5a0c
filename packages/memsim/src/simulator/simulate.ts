/**
 * One migration in virtual time: no clock, no socket, no memory of a guest; the same simulation always comes to the
 * same result.
 *
 *     set-up ──▶ rounds ──▶ the guest stops ──▶ last pages, device state, commit ──▶ it runs ──▶ (post-copy) ──▶ end
 */
import type { ErrorReport } from '@vmferry/engine/errors';
import { MOST_IN_FLIGHT } from '@vmferry/engine/postcopy/bulk-budget';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { millis, PAGE_BYTES } from '@vmferry/engine/units';
import { CodecChoice } from './codec-choice.ts';
import { added, type BulkCodec, emptyLoad, type Load, scaled } from './content.ts';
import type { Costs } from './costs.ts';
import { stretchAt } from './dirty/cells.ts';
import { Migration } from './migration.ts';
import type { Simulation, SimulationResult } from './model.ts';
import { servePages } from './postcopy/serve-pages.ts';
import { Rounds, type RoundsEnd } from './precopy.ts';

/** A QEMU's driver reads at most so much at a time. */
const MOST_READ_BYTES = 512 * 1024;

export function simulate(simulation: Simulation): SimulationResult {
  const refused = refusal(simulation);
  const migration = new Migration(simulation);
  if (refused) {
    migration.now = 0;
    return resultOf(migration, 'refused', refused);
  }
  const codecs = new CodecChoice(simulation.request.compress, migration.now);
  const end = new Rounds(migration, codecs).run();
  switch (end.type) {
    case 'abort':
      return resultOf(migration, 'failed', errorOf(end.code, end.why, 'precopy'));
    case 'link-dead':
      return resultOf(migration, 'failed', LINK_DEAD);
    case 'stop':
      return stopAndCopy(migration, end, codecs.codec);
    case 'postcopy':
      return moveFirst(migration, end, codecs);
  }
}

/** The guest stands still while the rest is sent. */
function stopAndCopy(
  migration: Migration,
  { dirty, aheadMs }: Extract<RoundsEnd, { type: 'stop' }>,
  codec: BulkCodec,
): SimulationResult {
  const { costs, builder } = migration;
  const beganAt = migration.now - costs.stopMs;
  const pages = migration.size(dirty);
  migration.guestStopped();
  const load = migration.loadOf(dirty);
  if (!migration.awaitLink()) return resultOf(migration, 'failed', LINK_DEAD);
  // What is between the hypervisors was paid for by the round that it belongs to, and is still on its way.
  const aheadBytes = afterStop(migration, (aheadMs * migration.rate) / 1000);
  if (!migration.carry(() => migration.speedOf(load, codec).tookMs))
    return resultOf(migration, 'failed', LINK_DEAD);
  migration.sent(load, codec);
  builder.downtimePart('finalPagesMs', millis(migration.now - beganAt));
  if (!handOver(migration, beganAt, { aheadBytes, stateMs: 0, resumeMs: 0 }))
    return resultOf(migration, 'failed', LINK_DEAD);
  migration.point(0);
  migration.stand(costs.completeMs);
  return { ...resultOf(migration, 'completed', null), finalBytes: Math.round(pages * PAGE_BYTES) };
}

/** The guest moves, its memory follows. */
function moveFirst(
  migration: Migration,
  {
    dirty: missing,
    atOnce,
    reached,
    batchBytes,
    aheadMs: onItsWayMs,
    discards,
  }: Extract<RoundsEnd, { type: 'postcopy' }>,
  codecs: CodecChoice,
): SimulationResult {
  const { codec } = codecs;
  const { costs, builder } = migration;
  if (atOnce) migration.pass(costs.leadMs);
  const beganAt = migration.now - costs.stopMs;
  const missingGiB = (migration.size(missing) * PAGE_BYTES) / 2 ** 30;
  migration.guestStopped();
  if (!migration.awaitLink()) return resultOf(migration, 'failed', LINK_DEAD);
  const { rate } = migration;
  let aheadBytes: number;
  if (atOnce) {
    aheadBytes = leadLeftBytes(costs, rate);
    const load = takeAhead(migration, missing, 0, (each) => migration.wireOf(each, codec), costs.leadBytes);
    migration.sent(load, codec);
  } else {
    aheadBytes = (onItsWayMs * rate) / 1000;
    const held = costs.heldBytes + costs.heldBatches * Math.min(MOST_READ_BYTES, batchBytes);
    if (migration.conductor.landsFirst) {
      const load = takeAhead(migration, missing, reached, (each) => each.rawPages * PAGE_BYTES, held);
      aheadBytes += migration.wireOf(load, codec);
      migration.sent(load, codec);
    }
    aheadBytes = afterStop(migration, aheadBytes);
  }
  builder.downtimePart('finalPagesMs', millis(migration.now - beganAt));
  const handedOver = handOver(migration, beganAt, {
    aheadBytes,
    stateMs: costs.postcopyStateMs + costs.missingMsPerGiB * missingGiB + (costs.discardUs * discards) / 1000,
    // Where next to nothing is missing, there is next to nothing to do beside it.
    resumeMs: costs.postcopyResumeMs * Math.min(1, (missingGiB * 2 ** 30) / MOST_IN_FLIGHT),
  });
  if (!handedOver) return resultOf(migration, 'failed', LINK_DEAD);
  migration.guestRuns();
  const figures = servePages(migration, missing, codecs, !atOnce || costs.leadBytes > 0);
  if (figures === 'link-dead') {
    const error = { ...LINK_DEAD, phase: 'postcopy', guestRunsOn: 'dest' } as const;
    return resultOf(migration, 'attention', error);
  }
  migration.stand(costs.completeMs);
  return { ...resultOf(migration, 'completed', null), postcopy: figures };
}

/** What a hypervisor had begun to send, as far as the link has not carried it when the guest stops. */
function leadLeftBytes({ leadMs, leadBytes }: Costs, rate: number): number {
  return Math.max(0, leadBytes - (rate * leadMs) / 1000);
}

/** The link does not wait for the guest to stand still. */
function afterStop({ costs, rate }: Migration, wireBytes: number): number {
  return Math.max(0, wireBytes - (rate * costs.stopMs) / 1000);
}

/** Takes pages out of what is missing, from one page on, until there is enough by `weight`. Gives all of it. */
function takeAhead(
  migration: Migration,
  missing: Float64Array,
  from: number,
  weight: (load: Load) => number,
  enough: number,
): Load {
  const { cells } = migration.set;
  const part = migration.set.newSet();
  let all = emptyLoad();
  for (let stretch = stretchAt(cells, from); stretch < cells.first.length; stretch += 1) {
    // It may be a rounding's worth more than enough.
    if (weight(all) >= enough) break;
    const [begin, end] = [cells.from[stretch]!, cells.from[stretch + 1]!];
    part.fill(0);
    for (let cell = begin; cell < end; cell += 1) part[cell] = missing[cell]!;
    const load = migration.loadOf(part);
    const left = enough - weight(all);
    const share = weight(load) <= left ? 1 : Math.max(0, left) / weight(load);
    for (let cell = begin; cell < end; cell += 1) missing[cell]! *= 1 - share;
    all = added(all, scaled(load, share));
    if (share < 1) break;
  }
  return all;
}

interface HandOver {
  /** On the wire before the state. */
  readonly aheadBytes: number;
  /** What post-copy takes more. */
  readonly stateMs: number;
  readonly resumeMs: number;
}

/** False where the link carries nothing any more. */
function handOver(migration: Migration, stoppedAt: number, more: HandOver): boolean {
  const { costs, link, builder } = migration;
  const beganAt = migration.now;
  if (!migration.carryBytes(more.aheadBytes + costs.deviceStateBytes)) return false;
  migration.stand(link.roundTripMs(migration.now) / 2 + costs.loadStateMs + more.stateMs);
  const loadedAt = migration.now;
  if (!migration.awaitLink()) return false;
  migration.stand(costs.commitMs + 1.5 * link.roundTripMs(migration.now));
  const committedAt = migration.now;
  migration.stand(costs.resumeMs + more.resumeMs);
  builder.downtimePart('deviceStateMs', millis(loadedAt - beganAt));
  builder.downtimePart('commitMs', millis(committedAt - loadedAt));
  builder.downtimePart('resumeMs', millis(migration.now - committedAt));
  builder.downtime({ downtimeMs: millis(migration.now - stoppedAt), uncertaintyMs: millis(0) });
  return true;
}

function refusal({ request, postcopyObstacle }: Simulation): ErrorReport | undefined {
  if (postcopyObstacle === undefined || (request.strategy !== 'postcopy' && request.strategy !== 'hybrid'))
    return undefined;
  return {
    ...errorOf('E_REFUSED', `Post-copy is not possible: ${postcopyObstacle}.`, 'preflight'),
    remedy: 'Choose precopy or auto.',
  };
}

const LINK_DEAD = errorOf('E_LINK_LOST', 'The link carries nothing any more.', 'precopy');

function errorOf(code: ErrorReport['code'], message: string, phase: ErrorReport['phase']): ErrorReport {
  return {
    code,
    message,
    side: 'source',
    phase,
    guestRunsOn: 'source',
    remedy: 'Change the scenario: another strategy, more bandwidth, other goals.',
  };
}

function resultOf(migration: Migration, outcome: Outcome, error: ErrorReport | null): SimulationResult {
  const { builder, simulation, decisions } = migration;
  builder.link({ streams: simulation.request.streams, reconnects: 0, tls: false });
  const report = wholeNumbers(builder.build({ outcome, now: millis(migration.now), error }));
  return { report, series: migration.series, decisions, finalBytes: 0, postcopy: undefined };
}

/** A model has parts of pages; a report has none. */
function wholeNumbers(report: MigrationReport): MigrationReport {
  const { raw, zero, same, delta } = report.pages;
  return {
    ...report,
    rawBytes: Math.round(report.rawBytes),
    wireBytes: Math.round(report.wireBytes),
    pages: { raw: Math.round(raw), zero: Math.round(zero), same, delta },
    rounds: report.rounds.map((row) => ({
      ...row,
      pages: Math.round(row.pages),
      rawBytes: Math.round(row.rawBytes),
      wireBytes: Math.round(row.wireBytes),
    })),
  };
}
