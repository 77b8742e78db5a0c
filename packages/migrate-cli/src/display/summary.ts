/** The end of a migration for people. */
import type { ErrorReport, GuestRunsOn, Side } from '@vmferry/engine/errors';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { formatDuration, formatRate, formatSize } from '../units.ts';
import { phaseWords, plain } from './progress.ts';

const OUTCOMES: Readonly<Record<Outcome, string>> = {
  completed: 'completed: the guest runs on the destination',
  failed: 'failed',
  cancelled: 'cancelled',
  refused: 'refused: nothing was touched',
  attention: 'the guest needs an operator',
};

/** A table of the figures, then the error if there is one. Ends with a line break. */
export function renderSummary(report: MigrationReport): string {
  const rows: [string, string][] = [['outcome', OUTCOMES[report.outcome]]];
  if (report.outcome !== 'refused') rows.push(...figureRows(report));
  for (const note of report.notes) rows.push(['note', plain(note)]);
  const width = Math.max(...rows.map(([name]) => name.length));
  const table = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
  const error = report.error === null ? '' : `\n${renderError(report.error)}`;
  return `${table}\n${error}`;
}

function figureRows(report: MigrationReport): [string, string][] {
  const { downtime, pages } = report;
  const rows: [string, string][] = [
    ['strategy', report.strategy],
    ['total', formatDuration(report.totalMs)],
  ];
  if (report.downtimeMs > 0) {
    rows.push([
      'downtime',
      `${formatDuration(report.downtimeMs)} ± ${formatDuration(report.downtimeUncertaintyMs)} ` +
        `(final pages ${formatDuration(downtime.finalPagesMs)}, device state ` +
        `${formatDuration(downtime.deviceStateMs)}, commit ${formatDuration(downtime.commitMs)}, ` +
        `resume ${formatDuration(downtime.resumeMs)})`,
    ]);
  }
  if (report.switchover.reason !== '') rows.push(['switchover', plain(report.switchover.reason)]);
  rows.push([
    'memory',
    `${formatSize(report.rawBytes)} of the guest, ${formatSize(report.wireBytes)} on the wire`,
  ]);
  rows.push(['pages', `${pages.raw} raw, ${pages.zero} zero, ${pages.same} same, ${pages.delta} delta`]);
  const last = report.rounds.at(-1);
  if (last !== undefined) {
    rows.push([
      'rounds',
      `${last.round}, the last of ${formatSize(last.rawBytes)} in ${formatDuration(last.durationMs)} ` +
        `(dirty rate ${formatRate(last.dirtyBytesPerSec)}, bandwidth ${formatRate(last.bandwidthBytesPerSec)})`,
    ]);
  }
  const { faults, link, announce } = report;
  if (faults.count > 0) {
    rows.push([
      'faults',
      `${faults.count}, half within ${formatDuration(faults.p50Ms)}, 99 % within ` +
        `${formatDuration(faults.p99Ms)}, the longest ${formatDuration(faults.maxMs)}`,
    ]);
  }
  if (link.streams > 0) {
    const security = link.tls ? 'TLS' : 'not encrypted';
    rows.push([
      'link',
      `${count(link.streams, 'stream')}, ${security}, ${count(link.reconnects, 'reconnect')}`,
    ]);
  }
  if (announce.frames > 0) {
    const where = announce.interfaces.length > 0 ? ` on ${plain(announce.interfaces.join(', '))}` : '';
    const more = announce.underWay ? ', and it goes on' : '';
    rows.push(['announced', `${count(announce.frames, 'frame')}${where}${more}`]);
  }
  return rows;
}

function count(n: number, word: string): string {
  return `${n} ${word}${n === 1 ? '' : 's'}`;
}

const SIDES: Readonly<Record<Side, string>> = {
  source: 'source agent',
  dest: 'destination agent',
  cli: 'command',
};

const PLACES: Readonly<Record<GuestRunsOn, string>> = {
  source: 'the guest runs on the source',
  dest: 'the guest runs on the destination',
  neither: 'the guest runs nowhere',
  unknown: 'it is not known where the guest runs',
};

/** What happened, who says so, where the guest runs, what to do. Ends with a line break. */
export function renderError(error: ErrorReport): string {
  // The command had none, where nobody else speaks of one.
  const none = error.side === 'cli' && error.phase === 'preflight' && error.guestRunsOn === 'neither';
  return [
    `error: ${plain(error.message)} (${error.code})`,
    `  where  ${SIDES[error.side]}, ${phaseWords(error.phase)}`,
    ...(none ? [] : [`  guest  ${PLACES[error.guestRunsOn]}`]),
    `  remedy ${plain(error.remedy)}`,
    '',
  ].join('\n');
}
