/**
 * What hosts take, from the reports of migrations on a link that holds nothing up: of a guest of the kind that is to
 * be predicted, at rest or nearly so. Whatever differs from link to link is left to the model.
 *
 * What else a host has to do makes it slower, never faster: of several runs the least counts, for each part that is
 * told as such. How fast pages go differs to both sides, and the run of a middle speed counts.
 */
import { POSTCOPY_BATCH } from '@vmferry/engine/carriage/batch-limits';
import { headStartOf } from '@vmferry/engine/policy/head-start';
import { ARRIVAL_MS } from '@vmferry/engine/postcopy/bulk-budget';
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
  const usual = usualOf(precopy);
  const { pages } = usual;
  const all = pages.raw + pages.zero;
  const pageUs = pageUsOf(usual);
  return {
    // A source that is kept from packing thoroughly, by a link that never holds it up, leaves more.
    left: least(precopy, leftOf),
    // Of the background in post-copy most is packed in haste.
    hastyLeft: Math.max(leftOf(usual), ...postcopy.map(leftOf)),
    zero: pages.zero / Math.max(1, all),
    costs: {
      ...DEFAULT_COSTS,
      setupMs: least(precopy, setupMsOf),
      sendPageUs: pageUs,
      takePageUs: pageUs,
      // One job at a time is what the rounds' speed was measured with.
      packCores: Number.POSITIVE_INFINITY,
      // Where nothing but the state goes, there is nothing but the stop.
      stopMs: Math.min(
        least(precopy, stopMsOf),
        least(postcopy, ({ downtime }) => downtime.finalPagesMs),
      ),
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
    ...(faulted.length > 0 && { faultMs: least(faulted, meanWaitMsOf) }),
    ...batchCosts(precopy, postcopy, guestPages),
  };
}

/** Waits are about exponential, so their mean is more than their median. Those behind a batch are none of it. */
function meanWaitMsOf({ faults }: MigrationReport): number {
  return faults.p50Ms / Math.LN2;
}

/** What batches in post-copy take more than those before, where most pages came in the background. */
function batchCosts(
  precopy: readonly MigrationReport[],
  postcopy: readonly MigrationReport[],
  guestPages: number,
): Pick<Costs, 'batchMs'> | undefined {
  const pageUs = pageUsOf(usualOf(precopy));
  const headStart = headStartOf({}, guestPages * PAGE_BYTES)?.pages ?? 0;
  const setupMs = least(precopy, setupMsOf);
  const known = postcopy.flatMap((run): readonly number[] => {
    const { faults, pages, totalMs, downtimeMs } = run;
    const share = rawShare(pages);
    // Rounds are told where they end: a head start that the guest did not tell of went as fast as they do.
    const aheadPages = run.rounds.reduce((sum, row) => sum + row.pages, 0) || headStart;
    const aheadMs = roundsMsOf(run) || (headStart * share * pageUs) / 1000;
    const left = Math.max(0, (pages.raw + pages.zero - aheadPages) * share);
    if (faults.count * neighbourhood(0) * share > left / 2) return [];
    const leftMs = totalMs - setupMs - aheadMs - downtimeMs - DEFAULT_COSTS.completeMs;
    // The background stands still for twice as long as an answer takes, less its own way; at first it does anyway.
    const heldMs = faults.count === 0 ? 0 : Math.max(ARRIVAL_MS, faults.count * meanWaitMsOf(run));
    return [(leftMs - heldMs - (left * pageUs) / 1000) / (left / POSTCOPY_BATCH.rawPages)];
  });
  // A difference of much larger figures, which errs to both sides.
  const middle = middleOf(known, (batchMs) => batchMs);
  return middle === undefined ? undefined : { batchMs: Math.max(0, middle) };
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

/** The one of a middle speed: how fast pages go differs from run to run, to both sides. */
function usualOf(runs: readonly MigrationReport[]): MigrationReport {
  return middleOf(runs, pageUsOf)!;
}

function setupMsOf(run: MigrationReport): number {
  return run.totalMs - roundsMsOf(run) - run.downtimeMs - DEFAULT_COSTS.completeMs;
}

function roundsMsOf({ rounds }: MigrationReport): number {
  return rounds.reduce((sum, { durationMs }) => sum + durationMs, 0);
}

/** The last pages at the rounds' speed; what is left of the stop is not theirs. */
function stopMsOf(run: MigrationReport): number {
  const { rounds, pages, downtime } = run;
  const roundPages = rounds.reduce((sum, row) => sum + row.pages, 0);
  const lastPages = Math.max(0, pages.raw + pages.zero - roundPages) * rawShare(pages);
  return downtime.finalPagesMs - (lastPages * pageUsOf(run)) / 1000;
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

/** The one in the middle by a figure, or the lower of two. */
function middleOf<T>(things: readonly T[], figure: (thing: T) => number): T | undefined {
  return things.toSorted((a, b) => figure(a) - figure(b))[Math.floor((things.length - 1) / 2)];
}
