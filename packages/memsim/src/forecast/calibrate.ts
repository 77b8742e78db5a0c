/**
 * What hosts take, from the report of one pre-copy on a link that holds nothing up: a guest of the kind that is to be
 * predicted, at rest or nearly so. Whatever differs from link to link is left to the model.
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

export function calibrate(report: MigrationReport): Calibration {
  const { downtime, pages, rounds, totalMs, downtimeMs, wireBytes } = report;
  const roundsMs = rounds.reduce((sum, { durationMs }) => sum + durationMs, 0);
  const roundPages = rounds.reduce((sum, row) => sum + row.pages, 0);
  const all = pages.raw + pages.zero;
  const rawShare = pages.raw / Math.max(1, all);
  const rawInRounds = Math.max(1, roundPages * rawShare);
  const scanUs = DEFAULT_COSTS.scanPageUs;
  const pageUs = Math.max(0.1, (roundsMs * 1000 - roundPages * scanUs) / rawInRounds);
  const left = wireBytes / Math.max(1, pages.raw * PAGE_BYTES);
  // The last pages, and those that were on their way, at the rounds' speed; what is left of the stop is not theirs.
  const { bufferedBytes, inFlightBytes } = DEFAULT_COSTS;
  const onTheirWay = Math.min(
    rawInRounds,
    (bufferedBytes + inFlightBytes / Math.max(0.01, left)) / PAGE_BYTES,
  );
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
      commitMs: downtime.commitMs,
      resumeMs: downtime.resumeMs,
    },
  };
}
