/** The demo's result as cells, for the terminal and for the page. */
import { renderColumns } from '../display/columns.ts';
import { formatDuration, formatSize } from '../units.ts';
import type { DemoMove } from './qemu-demo.ts';

export const COLUMNS = [
  'strategy',
  'outcome',
  'downtime',
  'client gap',
  'total',
  'guest memory',
  'on the wire',
  'faults',
] as const;

const NOT_MEASURED = '-';

/** In the order of COLUMNS. */
export function cellsOf(move: DemoMove): readonly string[] {
  const { report, client, strategy } = move;
  const name = strategy === report.strategy ? strategy : `${strategy} (${report.strategy})`;
  if (report.outcome === 'refused') {
    return [name, report.outcome, ...COLUMNS.slice(2).map(() => NOT_MEASURED)];
  }
  return [
    name,
    report.outcome,
    report.downtimeMs > 0
      ? `${formatDuration(report.downtimeMs)} ± ${formatDuration(report.downtimeUncertaintyMs)}`
      : NOT_MEASURED,
    client === null ? NOT_MEASURED : formatDuration(client.udpGapMs),
    formatDuration(report.totalMs),
    formatSize(report.rawBytes),
    formatSize(report.wireBytes),
    String(report.faults.count),
  ];
}

/** With a line break at its end. The figures are set to the right. */
export function renderTable(moves: readonly DemoMove[]): string {
  return renderColumns([COLUMNS, ...moves.map(cellsOf)], 2);
}
