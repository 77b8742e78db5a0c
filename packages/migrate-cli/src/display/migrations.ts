import type { MigrationSummary } from '@vmferry/agent-core/operations';
import { formatDuration } from '../units.ts';
import { phaseWords, plain } from './progress.ts';

const HEAD = ['ID', 'GUEST', 'ROLE', 'PEER', 'STRATEGY', 'STATE', 'STARTED', 'LASTED'];

/** A table for people, with a line break at its end. `now`: milliseconds since the epoch. */
export function renderMigrations(migrations: readonly MigrationSummary[], now = Date.now()): string {
  if (migrations.length === 0) return 'no migrations\n';
  const rows = [HEAD, ...migrations.map((migration) => row(migration, now))];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)));
  return rows
    .map((cells) => cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

function row(migration: MigrationSummary, now: number): string[] {
  const { id, guest, role, peer, strategy, phase, outcome, startedAt, finishedAt } = migration;
  return [
    plain(id),
    plain(guest),
    role,
    plain(peer),
    strategy,
    outcome ?? phaseWords(phase),
    startTime(startedAt),
    formatDuration(Math.max(0, (finishedAt ?? now) - startedAt)),
  ];
}

function startTime(epochMs: number): string {
  const date = new Date(epochMs);
  if (Number.isNaN(date.getTime())) return '?';
  return date.toISOString().slice(0, 19).replace('T', ' ');
}
