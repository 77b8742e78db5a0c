/**
 * A post-copy that came to a halt after its commit is finished: the guest's hypervisors have all that is needed, and the
 * agents only carry between them.
 *
 *     connect ─▶ preflight ─▶ postcopy (all of it verbatim) ─▶ completion
 *        │           └── the destination has all of it: what is left here is ended ──▶ completed
 *        └── refused: nothing was touched   └── attention: as before, and may be tried again
 */
import { EventHub } from '@vmferry/agent-core/event-hub';
import { machineNow } from '@vmferry/agent-core/machine';
import { endOf, type MigrationSummary, type RunningMigration } from '@vmferry/agent-core/operations';
import { SessionJournal } from '@vmferry/agent-core/session-journal';
import { type ErrorReport, GuestError, type Phase } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { GuestDescription, SourceGuest } from '@vmferry/engine/guest';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { PeerError } from '@vmferry/wire/errors';
import { Destination, destinationOf } from './destination.ts';
import { factsOf, Refused, refusal } from './failures.ts';
import { managedPlan } from './managed-plan.ts';
import type { MigrationOptions } from './migration.ts';

/** From libvirt's word that all is over to the destination's. */
const COMPLETE_TIMEOUT_MS = 30_000;
/** The hypervisors and the agents that were there before need a moment to see that their connections broke. */
const HALT_MS = 1000;
const AGAIN = 'then run "vmferry resume" again';
/** Remedies that say it themselves, or that nothing can be resumed any more. */
const FINAL = /vmferry resume|virsh destroy/;

export class Resumption implements RunningMigration {
  readonly done: Promise<MigrationReport>;
  readonly #options: MigrationOptions;
  readonly #hub = new EventHub();
  readonly #startedAt = Date.now();
  readonly #builder: ReportBuilder;
  #phase: Phase = 'connect';
  #report: MigrationReport | undefined;
  #guest: SourceGuest | undefined;
  #destination: Destination | undefined;
  #journal: SessionJournal<'source'> | undefined;

  constructor(options: MigrationOptions) {
    this.#options = options;
    this.#builder = new ReportBuilder({
      guest: options.request.guest,
      strategy: 'postcopy',
      startedAt: machineNow(),
    });
    this.done = this.#run();
  }

  get summary(): MigrationSummary {
    const { id, request } = this.#options;
    return {
      id,
      role: 'source',
      guest: request.guest,
      peer: request.to,
      strategy: 'postcopy',
      phase: this.#phase,
      startedAt: this.#startedAt,
      ...endOf(this.#startedAt, this.#report),
    };
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.#hub.observe();
  }

  /** The guest runs on the destination with memory missing: to stop now would only leave it so. */
  cancel(): void {
    this.#hub.publish({
      type: 'note',
      text: 'What is being finished cannot be cancelled: the guest is committed to the destination.',
    });
  }

  /** It has closed its link at its end. */
  disconnect(): Promise<void> {
    return Promise.resolve();
  }

  async #run(): Promise<MigrationReport> {
    // Whoever started it gets to observe it first.
    await Promise.resolve();
    const { id, request } = this.#options;
    this.#hub.publish({ type: 'started', id, guest: request.guest, to: request.to });
    let begun = false;
    try {
      const destination = await this.#prepare();
      if (!destination) return this.#end('completed');
      await this.#journal!.write('committed', 'postcopy');
      begun = true;
      await this.#finish(destination);
      await this.#journal!.write('done', 'postcopy');
      return this.#end('completed');
    } catch (error) {
      return this.#end(begun ? 'attention' : 'refused', error);
    } finally {
      await this.#guest?.close();
      await this.#journal?.close();
      await this.#destination?.close();
    }
  }

  /** Undefined where nothing is left to finish. */
  async #prepare(): Promise<Destination | undefined> {
    const { agent, guests, request } = this.#options;
    const guest = await guests(request.guest);
    this.#guest = guest;
    this.#setPhase('preflight');
    const description = await guest.describe();
    if (!guest.finishPostcopy) throw unsupported(request.guest);
    // First: what the destination says of one that it does not have is true only of one that has moved.
    await guest.expectHalted?.().catch((error: unknown) => this.#refuse(error, description));
    const destination = await Destination.connect(destinationOf(request, agent));
    this.#destination = destination;
    if (!(await this.#open(destination, description))) {
      await guest.endMoved?.(managedPlan(request));
      this.#note(
        'The destination had all of the guest, and had not been heard: what was left of it here was ended.',
      );
      return undefined;
    }
    this.#journal = await SessionJournal.open({
      stateDir: agent.stateDir,
      session: destination.session,
      guest: request.guest,
      role: 'source',
      peer: request.to,
    });
    return destination;
  }

  /** False where the destination has all of it. */
  async #open(destination: Destination, description: GuestDescription): Promise<boolean> {
    const answer = await destination.open(description, this.#options.request, true);
    if (answer.ok) return true;
    if (this.#guest?.endMoved && answer.reasons.some(({ code }) => code === 'E_GUEST_MOVED')) return false;
    throw new Refused({ ...refusal(answer.reasons, 'dest', 'preflight'), guestRunsOn: 'unknown' });
  }

  #refuse(error: unknown, { running }: GuestDescription): never {
    if (!(error instanceof GuestError)) throw error;
    const report = refusal([error], 'source', 'preflight');
    throw new Refused({ ...report, guestRunsOn: running ? 'source' : 'unknown' });
  }

  async #finish(destination: Destination): Promise<void> {
    const guest = this.#guest!;
    this.#setPhase('postcopy');
    await destination.start();
    void destination.carryAll(guest.sideConnections, this.#options.agent.log);
    await new Promise((resolve) => setTimeout(resolve, HALT_MS));
    const plan = managedPlan(this.#options.request);
    const finished = guest.finishPostcopy!(plan, (text) => this.#note(text));
    const gone = guest.gone.then((error) => {
      throw error;
    });
    const complete = destination.control.expect('complete', Number.POSITIVE_INFINITY);
    const failed = complete.catch((error: unknown) => {
      if (error instanceof PeerError) throw error;
    });
    await Promise.race([finished, gone, this.#lost(destination), failed.then(() => finished)]);
    this.#setPhase('completion');
    await inTime(complete);
    destination.control.send({ type: 'goodbye' });
  }

  async #lost(destination: Destination): Promise<never> {
    const { error } = await destination.control.link.closed;
    throw new GuestError(
      'E_LINK_LOST',
      `The link to the destination was lost: ${error?.message ?? 'the destination agent closed the connection'}`,
      'bring the link and both agents back, then run "vmferry resume" again',
    );
  }

  #note(text: string): void {
    this.#builder.note(text);
    this.#hub.publish({ type: 'note', text });
  }

  #setPhase(phase: Phase): void {
    this.#phase = phase;
    this.#hub.publish({ type: 'phase', phase });
  }

  #errorReport(error: unknown, outcome: Outcome): ErrorReport {
    if (error instanceof Refused) return error.report;
    const facts = factsOf(error);
    // Before anything is touched nobody has looked.
    if (outcome === 'refused') return { ...facts, phase: this.#phase, guestRunsOn: 'unknown' };
    const remedy = FINAL.test(facts.remedy) ? facts.remedy : `${facts.remedy}; ${AGAIN}`;
    return { ...facts, remedy, phase: this.#phase, guestRunsOn: 'dest' };
  }

  #end(outcome: Outcome, error?: unknown): MigrationReport {
    this.#builder.link({ streams: 0, reconnects: 0, tls: this.#destination?.tls ?? false });
    this.#report = this.#builder.build({
      outcome,
      now: machineNow(),
      error: error === undefined ? null : this.#errorReport(error, outcome),
    });
    this.#options.agent.log.info({ outcome, error: this.#report.error }, 'resumption ended');
    this.#hub.publish({ type: 'finished', report: this.#report });
    return this.#report;
  }
}

async function inTime(complete: Promise<unknown>): Promise<void> {
  const late = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(notComplete()), COMPLETE_TIMEOUT_MS);
    void complete.catch(() => {}).then(() => clearTimeout(timer));
  });
  await Promise.race([complete, late]);
}

function notComplete(): GuestError {
  return new GuestError(
    'E_TIMEOUT',
    'all of the guest has been sent, and the destination has not said that it has it',
    'see that it runs there, and not in post-copy ("virsh domstate --reason")',
  );
}

function unsupported(guest: string): GuestError {
  return new GuestError(
    'E_UNSUPPORTED',
    `a migration of ${guest} cannot be resumed: only libvirt's can yet`,
    'see the README on what to do by hand',
  );
}
