/** What the display knows of a migration: a pure function of its events. */
import type { Phase } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import { formatDuration, formatRate, formatSize } from '../units.ts';

export type ProgressEvent = Extract<MigrationEvent, { type: 'progress' }>;

export interface ProgressState {
  readonly guest: string;
  readonly to: string;
  readonly phase: Phase;
  readonly latest: ProgressEvent | undefined;
  /** The latest few decisions, each in words. */
  readonly decisions: readonly string[];
}

const DECISIONS_SHOWN = 3;

export const initialState = (guest: string, to: string): ProgressState => ({
  guest,
  to,
  phase: 'connect',
  latest: undefined,
  decisions: [],
});

export function nextState(state: ProgressState, event: MigrationEvent): ProgressState {
  switch (event.type) {
    case 'started':
      return { ...state, guest: event.guest, to: event.to };
    case 'phase':
      return { ...state, phase: event.phase };
    case 'progress':
      return { ...state, phase: event.phase, latest: event };
    case 'decision':
      return {
        ...state,
        decisions: [...state.decisions, `${event.what}: ${event.why}`].slice(-DECISIONS_SHOWN),
      };
    default:
      return state;
  }
}

const PHASE_WORDS: Readonly<Record<Phase, string>> = {
  connect: 'connecting',
  preflight: 'preflight',
  setup: 'setting up',
  precopy: 'pre-copy',
  switchover: 'switchover',
  postcopy: 'post-copy',
  completion: 'completing',
  rollback: 'rolling back to the source',
};

export const phaseWords = (phase: Phase): string => PHASE_WORDS[phase];

/** The block of a terminal, at most `columns` wide. The first line is the headline. */
export function renderBlock(state: ProgressState, columns: number, elapsedMs: number): readonly string[] {
  const { latest } = state;
  const width = Math.max(20, columns - 1);
  const round = latest !== undefined && state.phase === 'precopy' ? `, round ${latest.round}` : '';
  const lines = [
    `${plain(state.guest)} → ${plain(state.to)}`,
    `${phaseWords(state.phase)}${round} · ${formatDuration(elapsedMs)} elapsed`,
  ];
  if (latest !== undefined) {
    const remaining = `${formatSize(latest.remainingBytes)} of ${formatSize(latest.totalBytes)} remaining`;
    lines.push(`[${bar(latest, Math.min(30, Math.max(5, width - remaining.length - 3)))}] ${remaining}`);
    lines.push(
      `dirty rate ${formatRate(latest.dirtyBytesPerSec)}, bandwidth ${formatRate(latest.bandwidthBytesPerSec)}`,
    );
    const told = figures(latest);
    if (told !== '') lines.push(told);
  }
  for (const decision of state.decisions) lines.push(`· ${plain(decision)}`);
  return lines.map((line) => (line.length > width ? `${line.slice(0, width - 1)}…` : line));
}

/** One line for logs. */
export function renderLine(state: ProgressState, elapsedMs: number): string {
  const { latest } = state;
  const head = `${formatDuration(elapsedMs)}  ${phaseWords(state.phase)}`;
  if (latest === undefined) return head;
  return [
    `${head}, round ${latest.round}`,
    `${formatSize(latest.remainingBytes)} remaining`,
    `dirty rate ${formatRate(latest.dirtyBytesPerSec)}`,
    `bandwidth ${formatRate(latest.bandwidthBytesPerSec)}`,
    figures(latest),
  ]
    .filter((part) => part !== '')
    .join(', ');
}

function figures(progress: ProgressEvent): string {
  const { phase, expectedDowntimeMs: expected, faults, disks } = progress;
  const told = expected === null ? 'not known' : formatDuration(expected);
  // Once the guest has moved no downtime is to come.
  const downtime = phase === 'postcopy' || phase === 'completion' ? [] : [`expected downtime ${told}`];
  const faulted = faults > 0 ? [`${faults} faults`] : [];
  const copied = disks ? [`disks ${formatSize(disks.copiedBytes)} of ${formatSize(disks.totalBytes)}`] : [];
  return [...downtime, ...faulted, ...copied].join(', ');
}

function bar(progress: ProgressEvent, width: number): string {
  const share = progress.totalBytes > 0 ? 1 - progress.remainingBytes / progress.totalBytes : 0;
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}

/** Text of a peer in one line and without control characters, which a terminal would obey. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
}
