/** Simulated migrations for people. */

import type { Forecast } from '@vmferry/memsim/forecast/strategies';
import type { Comparison } from '@vmferry/memsim/scenario/expectations';
import type { Simulation, SimulationResult } from '@vmferry/memsim/simulator/model';
import type { SweepRow } from '@vmferry/memsim/sweep/row';
import { renderColumns } from '../display/columns.ts';
import { renderSummary } from '../display/summary.ts';
import { formatDuration, formatRate, formatSize } from '../units.ts';

const MOST_ROUNDS = 40;
const NONE = '-';

export function renderSetting({ guest, link, request }: Simulation): string {
  const { bandwidth, latencyMs, loss } = link.initial;
  const bits = formatRate(bandwidth * 8).replace('B/s', 'bit/s');
  const lost = loss > 0 ? `, ${(loss * 100).toPrecision(2)} % lost` : '';
  return (
    `guest ${guest.name}: ${formatSize(guest.memoryBytes)}, ${guest.vcpus} vCPUs, ${guest.workload.kind}\n` +
    `link: ${bits}, ${formatDuration(latencyMs)} one way${lost}${link.changes.length > 0 ? `, ${link.changes.length} changes` : ''}\n` +
    `asked: ${request.strategy}, downtime at most ${formatDuration(request.maxDowntimeMs)}` +
    `${request.deadlineMs === undefined ? '' : `, over by ${formatDuration(request.deadlineMs)}`}\n`
  );
}

export function renderResult({ report, decisions, postcopy, finalBytes }: SimulationResult): string {
  const parts = [renderSummary(report).replace(' the guest runs on the destination', ' in virtual time')];
  const { rounds } = report;
  if (rounds.length > 0) {
    const rows = rounds
      .slice(0, MOST_ROUNDS)
      .map((row) => [
        String(row.round),
        formatSize(row.rawBytes),
        formatSize(row.wireBytes),
        formatDuration(row.durationMs),
        formatRate(row.dirtyBytesPerSec),
      ]);
    const head = ['round', 'guest memory', 'on the wire', 'time', 'dirty rate'];
    const left = rounds.length > MOST_ROUNDS ? `and ${rounds.length - MOST_ROUNDS} more rounds\n` : '';
    parts.push(`\n${renderColumns([head, ...rows], 1)}${left}`);
  }
  if (finalBytes > 0) parts.push(`stopped: ${formatSize(finalBytes)} of guest memory\n`);
  if (postcopy !== undefined) {
    const wait = postcopy.faults > 0 ? `, each ${formatDuration(postcopy.meanWaitMs)} on average` : '';
    parts.push(
      `post-copy: ${formatSize(postcopy.missingPages * 4096)} missing, ${postcopy.faults} faults${wait}\n`,
    );
  }
  if (decisions.length > 0) {
    parts.push('\n');
    for (const { atMs, what, why } of decisions.slice(-20))
      parts.push(`${formatDuration(atMs)}: ${what}: ${why}\n`);
  }
  return parts.join('');
}

export function renderComparisons(comparisons: readonly Comparison[]): string {
  const rows = comparisons.map(({ figure, expected, simulated, off, within, holds }) => [
    figure,
    figureWords(figure, expected),
    figureWords(figure, simulated),
    `${(off * 100).toFixed(1)} %`,
    `${(within * 100).toFixed(0)} %`,
    holds ? 'holds' : 'FAILS',
  ]);
  return renderColumns([['figure', 'expected', 'simulated', 'off by', 'at most', ''], ...rows], 1);
}

function figureWords(figure: Comparison['figure'], value: number): string {
  switch (figure) {
    case 'totalMs':
    case 'downtimeMs':
    case 'firstRoundMs':
    case 'laterMs':
    case 'faultWaitMs':
      return value < 10 ? `${value.toFixed(2)} ms` : formatDuration(value);
    case 'wireBytes':
    case 'finalBytes':
      return value < 1e6 ? `${(value / 1e3).toFixed(0)} kB` : `${(value / 1e6).toFixed(1)} MB`;
    case 'faultShare':
      return `${(value * 100).toFixed(1)} %`;
    case 'pagesTwice':
      return String(value);
  }
}

export function renderForecasts(forecasts: readonly Forecast[]): string {
  const rows = forecasts.map(({ strategy, result: { report, postcopy } }) => [
    strategy,
    report.outcome,
    report.outcome === 'refused' ? NONE : formatDuration(report.totalMs),
    report.downtimeMs > 0 ? formatDuration(report.downtimeMs) : NONE,
    formatSize(report.wireBytes),
    String(report.rounds.length),
    String(report.faults.count),
    postcopy !== undefined && postcopy.faults > 0 ? formatDuration(postcopy.meanWaitMs) : NONE,
  ]);
  const head = ['strategy', 'outcome', 'total', 'downtime', 'on the wire', 'rounds', 'faults', 'wait'];
  const [first = '', ...lines] = renderColumns([head, ...rows], 2).split('\n');
  const words = forecasts.map(({ obstacle }, index) => `${lines[index]}  ${obstacle ?? 'meets the goals'}\n`);
  return `${first}\n${words.join('')}`;
}

/** One line for each strategy: medians, and how many completed. */
export function renderSweep(rows: readonly SweepRow[]): string {
  const strategies = [...new Set(rows.map(({ strategy }) => strategy))];
  const lines = strategies.map((strategy) => {
    const own = rows.filter((row) => row.strategy === strategy);
    const done = own.filter(({ outcome }) => outcome === 'completed');
    const of = (figure: (row: SweepRow) => number): number => median(done.map(figure));
    return [
      strategy,
      String(own.length),
      String(done.length),
      done.length === 0 ? NONE : formatDuration(of((row) => row.totalMs)),
      done.length === 0 ? NONE : formatDuration(of((row) => row.downtimeMs)),
      done.length === 0 ? NONE : formatSize(of((row) => row.wireBytes)),
      done.length === 0 ? NONE : String(Math.round(of((row) => row.faults))),
    ];
  });
  return renderColumns(
    [['strategy', 'runs', 'completed', 'total', 'downtime', 'on the wire', 'faults'], ...lines],
    1,
  );
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN;
}
