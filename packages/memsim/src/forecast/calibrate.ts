/**
 * What hosts take, from the reports of a pre-copy and a post-copy on a link that holds nothing up: a guest of the kind
 * that is to be predicted, at rest or nearly so. Whatever differs from link to link is left to the model.
 */
import type { MigrationReport } from '@vmferry/engine/report/report';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { type Costs, DEFAULT_COSTS } from '../simulator/costs.ts';

export interface Calibration {
  readonly costs: Costs;
  /** Share of a page with content that was left on the wire. */
  readonly left: number;
  /** Share of the guest's pages that were zeroes. */
  readonly zero: number;
}

/** Fewer faults tell nothing of how long one takes. */
const LEAST_FAULTS = 10;

/** @param postcopy absent: what only post-copy takes is as on any host */
export function calibrate(report: MigrationReport, postcopy?: MigrationReport): Calibration {
  const { downtime, pages, rounds, totalMs, downtimeMs, wireBytes } = report;
  const roundsMs = rounds.reduce((sum, { durationMs }) => sum + durationMs, 0);
  const roundPages = rounds.reduce((sum, row) => sum + row.pages, 0);
  const all = pages.raw + pages.zero;
  const rawShare = pages.raw / Math.max(1, all);
  const rawInRounds = Math.max(1, roundPages * rawShare);
  const scanUs = DEFAULT_COSTS.scanPageUs;
  const pageUs = Math.max(0.1, (roundsMs * 1000 - roundPages * scanUs) / rawInRounds);
  const left = wireBytes / Math.max(1, pages.raw * PAGE_BYTES);
  // The last pages, and those that were ready, at the rounds' speed; what is left of the stop is not theirs. An
  // unshaped link has next to nothing on its way.
  const { bufferedMs, bufferedBytes } = DEFAULT_COSTS;
  const lately = (rounds.at(-1)?.pages ?? 0) * rawShare;
  const onTheirWay = Math.min(lately, bufferedBytes / PAGE_BYTES, (bufferedMs * 1000) / pageUs);
  const lastPages = Math.max(0, all - roundPages) * rawShare;
  const stopMs = Math.max(0, downtime.finalPagesMs - ((lastPages + onTheirWay) * pageUs) / 1000);
  return {
    left,
    zero: pages.zero / Math.max(1, all),
    costs: {
      ...DEFAULT_COSTS,
      setupMs: Math.max(0, totalMs - roundsMs - downtimeMs - DEFAULT_COSTS.completeMs),
      sendPageUs: pageUs,
      takePageUs: pageUs,
      // One job at a time is what the rounds' speed was measured with.
      packCores: Number.POSITIVE_INFINITY,
      stopMs,
      loadStateMs: downtime.deviceStateMs,
      ...(postcopy && {
        postcopyStateMs: Math.max(0, postcopy.downtime.deviceStateMs - downtime.deviceStateMs),
        ...(postcopy.faults.count >= LEAST_FAULTS && { faultMs: postcopy.faults.p50Ms }),
      }),
      commitMs: downtime.commitMs,
      resumeMs: downtime.resumeMs,
    },
  };
}
