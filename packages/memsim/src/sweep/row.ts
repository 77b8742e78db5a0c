/** One run of a sweep, flat: a line of the CSV, a point of the plots. */
import type { SweepAxes } from '../scenario/parse.ts';
import type { SimulationResult } from '../simulator/model.ts';

export interface SweepRow {
  readonly guest: string;
  readonly memoryBytes: number;
  readonly link: string;
  readonly strategy: string;
  /** What `auto` came to. */
  readonly chosen: string;
  readonly outcome: string;
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly rounds: number;
  readonly rawBytes: number;
  readonly wireBytes: number;
  /** Sent while the guest stood still. */
  readonly finalBytes: number;
  readonly faults: number;
  readonly faultP50Ms: number;
  readonly faultP99Ms: number;
  readonly faultMaxMs: number;
  readonly reason: string;
  readonly error: string;
}

/** The course of a run, for plots. */
export interface SweepCourse {
  /** Index of the run in the sweep. */
  readonly run: number;
  readonly rounds: readonly {
    readonly number: number;
    readonly kind: RoundKind;
    readonly wireBytes: number;
  }[];
  readonly series: SimulationResult['series'];
}

export type RoundKind = 'live' | 'stopped' | 'post-copy';

const MOST_POINTS = 100;
const MOST_ROUNDS = 60;

export function rowOf(axes: SweepAxes, { report, finalBytes }: SimulationResult): SweepRow {
  return {
    guest: axes.guest,
    memoryBytes: axes.memoryBytes,
    link: axes.link,
    strategy: axes.strategy,
    chosen: report.strategy,
    outcome: report.outcome,
    totalMs: round(report.totalMs),
    downtimeMs: round(report.downtimeMs),
    rounds: report.rounds.length,
    rawBytes: report.rawBytes,
    wireBytes: report.wireBytes,
    finalBytes: Math.round(finalBytes),
    faults: report.faults.count,
    faultP50Ms: round(report.faults.p50Ms),
    faultP99Ms: round(report.faults.p99Ms),
    faultMaxMs: round(report.faults.maxMs),
    reason: report.switchover.reason,
    error: report.error?.message ?? '',
  };
}

export function courseOf(run: number, { report, series, postcopy }: SimulationResult): SweepCourse {
  const live = report.rounds.map(({ round: number, wireBytes }) => ({
    number,
    kind: 'live' as const,
    wireBytes,
  }));
  const rest = report.wireBytes - live.reduce((sum, { wireBytes }) => sum + wireBytes, 0);
  const last: RoundKind = postcopy ? 'post-copy' : 'stopped';
  const rounds = [
    ...live.slice(-MOST_ROUNDS),
    ...(rest > 0 && report.outcome === 'completed'
      ? [{ number: live.length + 1, kind: last, wireBytes: rest }]
      : []),
  ];
  return { run, rounds, series: thinned(series) };
}

function thinned(series: SimulationResult['series']): SimulationResult['series'] {
  const every = Math.max(1, Math.ceil(series.length / MOST_POINTS));
  return series
    .filter((_, index) => index % every === 0 || index === series.length - 1)
    .map(({ atMs, remainingBytes, faults }) => ({
      atMs: round(atMs),
      remainingBytes: Math.round(remainingBytes),
      faults,
    }));
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
