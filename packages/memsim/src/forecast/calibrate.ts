/**
 * What hosts take, from the reports of migrations on a link that holds nothing up: of a guest of the kind that is to
 * be predicted, at rest or nearly so. Whatever differs from link to link is left to the model.
 *
 * What else a host has to do makes it slower, never faster: of several runs the least counts, for each part.
 */
import { POSTCOPY_BATCH } from '@vmferry/engine/carriage/batch-limits';
import { NEIGHBOURHOOD_MS, neighbourhood, PACKED_SHARE } from '@vmferry/engine/postcopy/prepaging';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { type Costs, DEFAULT_COSTS } from '../simulator/costs.ts';

export interface CalibrationRuns {
  /** At least one. */
  readonly precopy: readonly MigrationReport[];
  /** At once. Without them, what only post-copy takes is as on any host. */
  readonly postcopy?: readonly MigrationReport[];
}

export interface Calibration {
  readonly costs: Costs;
  /** Share of a page with content that was left on the wire, of thorough and of hasty packing. */
  readonly left: number;
  readonly hastyLeft: number;
  /** Share of the guest's pages that were zeroes. */
  readonly zero: number;
}

/** Fewer faults tell nothing of how long one takes. */
const LEAST_FAULTS = 10;
/** Times a neighbourhood. */
const SELDOM = 4;

export function calibrate({ precopy, postcopy = [] }: CalibrationRuns): Calibration {
  const fastest = precopy.reduce((best, each) => (pageUsOf(each) < pageUsOf(best) ? each : best));
  const { pages } = fastest;
  const all = pages.raw + pages.zero;
  const pageUs = pageUsOf(fastest);
  return {
    left: leftOf(fastest),
    // Of the background in post-copy most is packed in haste.
    hastyLeft: Math.max(leftOf(fastest), ...postcopy.map(leftOf)),
    zero: pages.zero / Math.max(1, all),
    costs: {
      ...DEFAULT_COSTS,
      setupMs: least(
        precopy,
        (run) => run.totalMs - roundsMsOf(run) - run.downtimeMs - DEFAULT_COSTS.completeMs,
      ),
      sendPageUs: pageUs,
      takePageUs: pageUs,
      // One job at a time is what the rounds' speed was measured with.
      packCores: Number.POSITIVE_INFINITY,
      stopMs: least(precopy, stopMsOf),
      loadStateMs: least(precopy, ({ downtime }) => downtime.deviceStateMs),
      commitMs: least(precopy, ({ downtime }) => downtime.commitMs),
      resumeMs: least(precopy, ({ downtime }) => downtime.resumeMs),
      ...(postcopy.length > 0 && postcopyCosts(precopy, postcopy, all)),
    },
  };
}

function postcopyCosts(
  precopy: readonly MigrationReport[],
  postcopy: readonly MigrationReport[],
  guestPages: number,
): Partial<Costs> {
  const state = ({ downtime }: MigrationReport): number => downtime.deviceStateMs;
  const resume = ({ downtime }: MigrationReport): number => downtime.commitMs + downtime.resumeMs;
  const missingMs = Math.max(0, least(postcopy, state) - least(precopy, state));
  const faulted = postcopy.filter(({ faults }) => faults.count >= LEAST_FAULTS);
  return {
    // All of the guest was missing, and what was not is loaded as in pre-copy.
    postcopyStateMs: 0,
    missingMsPerGiB: (missingMs * 2 ** 30) / Math.max(1, guestPages * PAGE_BYTES),
    postcopyResumeMs: Math.max(0, least(postcopy, resume) - least(precopy, resume)),
    pathTripMs: least(postcopy, pathTripMsOf),
    // Waits are about exponential, so their mean is more than their median.
    ...(faulted.length > 0 && { faultMs: least(faulted, ({ faults }) => faults.p50Ms) / Math.LN2 }),
  };
}

/** From the pages that a fault brought, which follow from what the source took the path for. */
function pathTripMsOf({ faults, pages }: MigrationReport): number {
  const brought = (pages.raw + pages.zero) / Math.max(1, faults.count);
  const most = neighbourhood(Number.MAX_VALUE);
  // Whoever faults seldom has most of its pages from the background.
  if (brought >= most * SELDOM) return 0;
  const known = Math.floor(Math.log2(brought));
  if (2 ** known >= most) return 0;
  const batchBytes = POSTCOPY_BATCH.rawPages * PAGE_BYTES * PACKED_SHARE;
  // Halfway to what would have doubled it.
  const bytesPerMs = (2 ** (known + 0.5) * PAGE_BYTES * PACKED_SHARE) / NEIGHBOURHOOD_MS;
  return batchBytes / bytesPerMs;
}

/** Of a page with content, on the slowest stage. */
function pageUsOf({ rounds, pages }: MigrationReport): number {
  const roundsMs = rounds.reduce((sum, { durationMs }) => sum + durationMs, 0);
  const roundPages = rounds.reduce((sum, row) => sum + row.pages, 0);
  const raw = Math.max(1, roundPages * rawShare(pages));
  return Math.max(0.1, (roundsMs * 1000 - roundPages * DEFAULT_COSTS.scanPageUs) / raw);
}

function roundsMsOf({ rounds }: MigrationReport): number {
  return rounds.reduce((sum, { durationMs }) => sum + durationMs, 0);
}

/**
 * The last pages, and those that were ready, at the rounds' speed; what is left of the stop is not theirs. An unshaped
 * link has next to nothing on its way.
 */
function stopMsOf(run: MigrationReport): number {
  const { rounds, pages, downtime } = run;
  const pageUs = pageUsOf(run);
  const { bufferedMs, bufferedBytes } = DEFAULT_COSTS;
  const share = rawShare(pages);
  const lately = (rounds.at(-1)?.pages ?? 0) * share;
  const onTheirWay = Math.min(lately, bufferedBytes / PAGE_BYTES, (bufferedMs * 1000) / pageUs);
  const roundPages = rounds.reduce((sum, row) => sum + row.pages, 0);
  const lastPages = Math.max(0, pages.raw + pages.zero - roundPages) * share;
  return downtime.finalPagesMs - ((lastPages + onTheirWay) * pageUs) / 1000;
}

function leftOf({ pages, wireBytes }: MigrationReport): number {
  return wireBytes / Math.max(1, pages.raw * PAGE_BYTES);
}

function rawShare({ raw, zero }: MigrationReport['pages']): number {
  return raw / Math.max(1, raw + zero);
}

function least(runs: readonly MigrationReport[], figure: (run: MigrationReport) => number): number {
  return Math.max(0, Math.min(...runs.map(figure)));
}
