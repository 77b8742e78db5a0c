/** What an operator may ask of an agent, whether it runs in the command's own process or behind a socket. */

import type { Phase, Side } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrateRequest, Strategy } from '@vmferry/engine/options';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';

const KEEP_ENDED = 100;

/** What an agent serves: guests that leave, guests that come in, or both. */
export type AgentRole = 'source' | 'dest' | 'host';

/** Who speaks when an agent cannot start. One of both roles is neither side of a migration then. */
export function startingSide(role: AgentRole): Side {
  return role === 'host' ? 'cli' : role;
}

export interface MigrationSummary {
  readonly id: string;
  readonly role: 'source' | 'dest';
  readonly guest: string;
  /** The other agent: its URL, or its address where it is the one that connected. */
  readonly peer: string;
  readonly strategy: Strategy;
  readonly phase: Phase;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly finishedAt?: number;
  /** Absent while it runs. */
  readonly outcome?: Outcome;
}

/** A summary's end: nothing as long as there is no report. */
export function endOf(
  startedAt: number,
  report: MigrationReport | undefined,
): Pick<MigrationSummary, 'finishedAt' | 'outcome'> {
  return report ? { finishedAt: startedAt + report.totalMs, outcome: report.outcome } : {};
}

/** Running ones first, then the latest ended ones. */
export function inOrder(migrations: Iterable<MigrationSummary>): readonly MigrationSummary[] {
  return [...migrations].sort(
    (a, b) => Number(a.outcome !== undefined) - Number(b.outcome !== undefined) || b.startedAt - a.startedAt,
  );
}

/** Drops the oldest of the ended ones but for so many that `list` still shows. In the order of their beginning. */
export function forgetOld(migrations: Map<string, { readonly summary: MigrationSummary }>): void {
  const ended = [...migrations].filter(([, { summary }]) => summary.outcome !== undefined);
  for (const [id] of ended.slice(0, Math.max(0, ended.length - KEEP_ENDED))) migrations.delete(id);
}

/** A migration that this agent's operator started, or one of the peer's that it takes part in. */
export interface RunningMigration {
  readonly summary: MigrationSummary;
  /** Everything from now on, ended by `finished`; each call gives an observer of its own. */
  events(): AsyncIterable<MigrationEvent>;
  /** Asks for the end; the outcome tells what came of it. Later calls do nothing. */
  cancel(): void;
  /** Never rejects: a failure is a report. */
  readonly done: Promise<MigrationReport>;
}

export interface Operations {
  readonly role: AgentRole;
  /** A destination agent starts no migrations. Throws `MigrationError` (refused) for what can be seen at once. */
  migrate(request: MigrateRequest): RunningMigration;
  /** As `inOrder` has them. */
  list(): readonly MigrationSummary[];
  find(id: string): RunningMigration | undefined;
}
