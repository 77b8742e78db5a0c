/** The report of one migration, as `--json` prints it. Milliseconds, bytes and bytes per second. */
import type { ErrorReport } from '../errors.ts';
import type { Strategy } from '../options.ts';

export type Outcome = 'completed' | 'failed' | 'cancelled' | 'refused' | 'attention';

export interface RoundRow {
  readonly round: number;
  readonly pages: number;
  readonly rawBytes: number;
  readonly wireBytes: number;
  readonly durationMs: number;
  readonly dirtyBytesPerSec: number;
  readonly bandwidthBytesPerSec: number;
}

export interface MigrationReport {
  readonly schema: 1;
  readonly outcome: Outcome;
  /** What was done; `auto` only when the migration ended before one was chosen. */
  readonly strategy: Strategy;
  readonly guest: string;
  readonly totalMs: number;
  /** The guest's own: from the source's STOP to the destination's RESUME. 0 when the guest never stopped. */
  readonly downtimeMs: number;
  readonly downtimeUncertaintyMs: number;
  readonly downtime: {
    readonly finalPagesMs: number;
    readonly deviceStateMs: number;
    readonly commitMs: number;
    readonly resumeMs: number;
  };
  readonly switchover: { readonly reason: string };
  readonly rounds: readonly RoundRow[];
  readonly pages: {
    readonly raw: number;
    readonly zero: number;
    readonly same: number;
    readonly delta: number;
  };
  readonly rawBytes: number;
  readonly wireBytes: number;
  readonly faults: {
    readonly count: number;
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly maxMs: number;
  };
  readonly link: { readonly streams: number; readonly reconnects: number; readonly tls: boolean };
  /** What the destination had sent when the report was made; `underWay`: its further rounds follow. */
  readonly announce: {
    readonly frames: number;
    readonly interfaces: readonly string[];
    readonly underWay: boolean;
  };
  /** Things that an operator should know although nothing failed ("carried verbatim because …"). */
  readonly notes: readonly string[];
  readonly error: ErrorReport | null;
}

/** The command's exit status for a report (design, section 8). */
export function exitStatus(report: Pick<MigrationReport, 'outcome'>): 0 | 1 | 2 | 3 | 130 {
  switch (report.outcome) {
    case 'completed':
      return 0;
    case 'failed':
      return 1;
    case 'refused':
      return 2;
    case 'attention':
      return 3;
    case 'cancelled':
      return 130;
  }
}
