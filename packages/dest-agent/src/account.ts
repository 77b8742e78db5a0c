/** What is told of a migration on this side: to whoever observes it here, and in this side's report at its end. */
import { EventHub } from '@vmferry/agent-core/event-hub';
import type { Logger } from '@vmferry/agent-core/log';
import { machineNow } from '@vmferry/agent-core/machine';
import { type Phase, sentences } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { Examination } from '@vmferry/engine/guest';
import type { Strategy } from '@vmferry/engine/options';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import type { AnnounceResult } from './announcing.ts';

export interface AccountOptions {
  readonly link: () => Omit<MigrationReport['link'], 'reconnects'>;
  readonly log: Logger;
}

export class Account {
  /** Resolves at the end, and never rejects. */
  readonly done: Promise<MigrationReport>;
  /** Milliseconds since the epoch. */
  readonly startedAt = Date.now();
  readonly #options: AccountOptions;
  readonly #hub = new EventHub();
  #resolveDone!: (report: MigrationReport) => void;
  #guest = '';
  #phase: Phase = 'connect';
  #builder: ReportBuilder | undefined;
  #report: MigrationReport | undefined;

  constructor(options: AccountOptions) {
    this.#options = options;
    this.done = new Promise((resolve) => {
      this.#resolveDone = resolve;
    });
  }

  /** The guest's URI here; empty as long as the source has not said which it is. */
  get guest(): string {
    return this.#guest;
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Undefined until the end. */
  get report(): MigrationReport | undefined {
    return this.#report;
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.#hub.observe();
  }

  named(guest: string): void {
    this.#guest = guest;
  }

  enter(phase: Phase): void {
    this.#phase = phase;
  }

  /** The migration proper begins. */
  begin(strategy: Strategy): void {
    this.#builder = new ReportBuilder({ guest: this.#guest, strategy, startedAt: machineNow() });
  }

  /** Only for observers: the source's report has its own. */
  note(text: string): void {
    this.#hub.publish({ type: 'note', text });
  }

  announced({ notes, ...announce }: AnnounceResult): void {
    this.#builder?.announced(announce);
    for (const note of notes) this.#builder?.note(note);
  }

  examined(examination: Examination): void {
    if (examination.found === 'sound') this.#builder?.note(examination.words);
  }

  /** Observers are told the report, and nothing after it. Later calls do nothing. */
  end(outcome: Outcome, report: SwitchoverReport | null): void {
    if (this.#report) return;
    if (!this.#builder) this.begin('auto');
    const builder = this.#builder!;
    builder.link({ ...this.#options.link(), reconnects: 0 });
    this.#report = builder.build({
      outcome,
      now: machineNow(),
      error:
        report && report.code !== null
          ? {
              code: report.code,
              message: report.why,
              side: 'dest',
              phase: this.#phase,
              guestRunsOn: report.guestRunsOn,
              remedy: report.remedy,
            }
          : null,
    });
    this.#options.log.info({ outcome, why: report?.why }, 'migration ended');
    this.#hub.publish({ type: 'finished', report: this.#report });
    this.#resolveDone(this.#report);
  }

  /**
   * What could not be ended, and needed an operator, has been ended after all. Who was told that is told no more; who asks
   * from now on is told this.
   */
  mended({ outcome, why }: SwitchoverReport): void {
    const report = this.#report;
    if (!report?.error) return;
    const mended = 'It was tried again, and nothing is left of it here.';
    const words = sentences(report.error.message, mended);
    const error = { ...report.error, remedy: 'None: the guest was ended on the destination.' };
    this.#report = { ...report, outcome, error, notes: [...report.notes, words] };
    this.#options.log.info({ outcome, why }, 'the guest that could not be ended here has been ended');
  }
}
