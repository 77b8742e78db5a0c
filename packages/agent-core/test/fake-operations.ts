/** An agent whose migrations do what a test says. */
import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrateRequest } from '@vmferry/engine/options';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { millis } from '@vmferry/engine/units';
import { EventHub } from '../src/event-hub.ts';
import type { MigrationSummary, Operations, RunningMigration } from '../src/operations.ts';

export function reportOf(fields: Partial<MigrationReport> = {}): MigrationReport {
  const builder = new ReportBuilder({ guest: 'sim:web1', strategy: 'auto', startedAt: millis(0) });
  builder.link({ streams: 1, reconnects: 0, tls: true });
  return { ...builder.build({ outcome: 'completed', now: millis(1200) }), ...fields };
}

export class FakeMigration implements RunningMigration {
  readonly hub = new EventHub();
  readonly done: Promise<MigrationReport>;
  cancelled = 0;
  onCancel: () => void = () => {};
  #summary: MigrationSummary;
  #resolve: (report: MigrationReport) => void = () => {};

  constructor(
    readonly request: MigrateRequest,
    id: string,
    role: 'source' | 'dest' = 'source',
  ) {
    this.#summary = {
      id,
      role,
      guest: request.guest,
      peer: request.to,
      strategy: request.strategy,
      phase: 'connect',
      startedAt: 1_700_000_000_000,
    };
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get summary(): MigrationSummary {
    return this.#summary;
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.hub.observe();
  }

  cancel(): void {
    this.cancelled++;
    this.onCancel();
  }

  publish(...events: MigrationEvent[]): void {
    for (const event of events) this.hub.publish(event);
  }

  finish(fields: Partial<MigrationReport> = {}): MigrationReport {
    const report = reportOf({ guest: this.request.guest, ...fields });
    this.#summary = { ...this.#summary, outcome: report.outcome, finishedAt: this.#summary.startedAt + 1200 };
    this.hub.publish({ type: 'finished', report });
    this.#resolve(report);
    return report;
  }
}

export class FakeOperations implements Operations {
  readonly role: 'source' | 'dest';
  readonly migrations: FakeMigration[] = [];
  /** Called with each new migration once its first observer had time to come. */
  script: (migration: FakeMigration) => void | Promise<void> = () => {};

  constructor(role: 'source' | 'dest' = 'source') {
    this.role = role;
  }

  migrate(request: MigrateRequest): FakeMigration {
    const migration = new FakeMigration(request, `m${this.migrations.length + 1}`, this.role);
    this.migrations.push(migration);
    setImmediate(() => void this.script(migration));
    return migration;
  }

  list(): readonly MigrationSummary[] {
    return this.migrations.map(({ summary }) => summary);
  }

  find(id: string): FakeMigration | undefined {
    return this.migrations.find(({ summary }) => summary.id === id);
  }
}
