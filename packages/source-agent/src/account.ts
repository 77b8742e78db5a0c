/**
 * What is told of a migration: its phase, what happens in it and its figures, to whoever observes it while it goes, and
 * in the report at its end.
 */
import { EventHub } from '@vmferry/agent-core/event-hub';
import { machineNow } from '@vmferry/agent-core/machine';
import type { ClockOffset } from '@vmferry/engine/clock/offset';
import type { ErrorReport, Phase } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { PageBatch, SourceItem } from '@vmferry/engine/guest';
import type { MigrateRequest, Strategy } from '@vmferry/engine/options';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { bytes, PAGE_BYTES, type Round } from '@vmferry/engine/units';
import type { ControlMessage } from '@vmferry/wire/messages';
import { Times } from './times.ts';

export interface AccountOptions {
  readonly request: Pick<MigrateRequest, 'guest' | 'strategy'>;
  /** The destination's clock beside this host's; undefined before there is a destination. */
  readonly clock: () => ClockOffset | undefined;
  /** All that has gone over the link so far. */
  readonly wireBytes: () => number;
  readonly link: () => Omit<MigrationReport['link'], 'reconnects'>;
}

export class Account {
  readonly times: Times;
  readonly #options: AccountOptions;
  readonly #hub = new EventHub();
  readonly #builder: ReportBuilder;
  #phase: Phase = 'connect';
  #strategy: Strategy;
  /** As the destination counted them. */
  #faults: MigrationReport['faults'] | undefined;
  #report: MigrationReport | undefined;

  /** The migration begins now. */
  constructor(options: AccountOptions) {
    const { guest, strategy } = options.request;
    this.#options = options;
    this.#strategy = strategy;
    const began = machineNow();
    this.#builder = new ReportBuilder({ guest, strategy, startedAt: began });
    this.times = new Times(began, this.#builder, options.clock);
  }

  get phase(): Phase {
    return this.#phase;
  }

  get strategy(): Strategy {
    return this.#strategy;
  }

  /** Of guest memory that was sent, before it was packed. */
  get rawBytes(): number {
    return this.#builder.rawBytes;
  }

  /** As it was when the wire was last looked at. */
  get wireBytes(): number {
    return this.#builder.wireBytes;
  }

  /** Undefined until the end. */
  get report(): MigrationReport | undefined {
    return this.#report;
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.#hub.observe();
  }

  emit(event: MigrationEvent): void {
    this.#hub.publish(event);
  }

  enter(phase: Phase): void {
    if (this.#phase === phase) return;
    this.#phase = phase;
    this.emit({ type: 'phase', phase });
  }

  /** For the report as well. */
  note(text: string): void {
    this.#builder.note(text);
    this.emit({ type: 'note', text });
  }

  decided(strategy: Strategy): void {
    this.#strategy = strategy;
    this.#builder.strategy(strategy);
  }

  switchover(why: string): void {
    this.#builder.switchover(why);
  }

  /** Raw pages are those that have content. */
  sent({ pages, content }: PageBatch): void {
    const raw = content.length / PAGE_BYTES;
    this.#builder.pages({ raw, zero: pages.length - raw }, bytes(pages.length * PAGE_BYTES));
  }

  lookAtWire(): void {
    this.#builder.wire(bytes(this.#options.wireBytes() - this.#builder.wireBytes));
  }

  /** The first round begins now. */
  firstRound(): void {
    this.#builder.firstRound(machineNow());
  }

  roundOver(round: Round): void {
    this.lookAtWire();
    this.#builder.roundOver(round, machineNow());
  }

  roundEnd({ round, dirtyBytesPerSec }: Extract<SourceItem, { type: 'round-end' }>): void {
    this.lookAtWire();
    const row = this.#builder.roundEnd({ round, now: machineNow(), dirtyBytesPerSec });
    this.emit({ type: 'round', row });
  }

  /** The destination's last figures. */
  completed({ faults, announce, notes }: ControlMessage<'complete'>): void {
    this.#faults = faults;
    this.#builder.announced({ ...announce, underWay: announce.underWay ?? false });
    for (const note of notes ?? []) this.note(note);
  }

  /** Observers are told the report, and nothing after it. */
  end(outcome: Outcome, error: ErrorReport | null): MigrationReport {
    this.lookAtWire();
    this.#builder.link({ ...this.#options.link(), reconnects: 0 });
    const built = this.#builder.build({ outcome, now: this.times.ended, error });
    const report = { ...built, faults: this.#faults ?? built.faults };
    this.#report = report;
    this.emit({ type: 'finished', report });
    return report;
  }
}
