/**
 * The source's half of the switchover at work: the engine's machine is told what happens and decides, and what it
 * decides is carried out here: journal, messages, roll-back, the guest let go.
 */
import type { Logger } from '@vmferry/agent-core/log';
import { Machine, machineNow } from '@vmferry/agent-core/machine';
import { type GuestError, sentences } from '@vmferry/engine/errors';
import type { SourceRecordState } from '@vmferry/engine/journal/records';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { SwitchoverReport, ToDest } from '@vmferry/engine/switchover/protocol';
import { sourceDeadline, sourceToPostcopy, startSource, stepSource } from '@vmferry/engine/switchover/source';
import type {
  SourceAction,
  SourceEvent,
  SourceHands,
  SourceLimits,
  SourceState,
} from '@vmferry/engine/switchover/source-state';
import { WireError } from '@vmferry/wire/errors';
import { MAX_SENTENCE } from '@vmferry/wire/messages';
import type { Account } from './account.ts';
import type { Causes } from './causes.ts';
import { factsOf, linkLost } from './failures.ts';
import type { Departure } from './preflight.ts';
import { runStateRemark } from './run-state-remark.ts';

/** A failure ends the migration; later it is only told. */
const ENDING_BY_FAILURE: ReadonlySet<SourceState['phase']> = new Set([
  'copying',
  'sealing',
  'sealed',
  'committing',
]);
const LIMITS: SourceLimits = { readyMs: 150_000, runningMs: 30_000 };

export interface SwitchoverOptions {
  readonly departure: Pick<Departure, 'guest' | 'description' | 'destination' | 'journal'>;
  readonly request: Pick<MigrateRequest, 'announceIps' | 'destroySource'>;
  readonly hands: SourceHands;
  readonly account: Account;
  readonly causes: Causes;
  readonly log: Logger;
  readonly limits?: SourceLimits;
  /** Nothing of the guest is to be sent any more. */
  readonly stopTraffic: (why: string) => void;
}

export class Switchover {
  /** What the machine comes to, which may be that an operator is needed. */
  readonly outcome: Promise<SwitchoverReport>;
  /** What it comes to after all, where an operator was needed. */
  readonly mended: Promise<SwitchoverReport>;
  readonly #options: SwitchoverOptions;
  readonly #machine: Machine<SourceState, SourceEvent, SourceAction>;
  readonly #first: readonly SourceAction[];
  #resolveOutcome!: (report: SwitchoverReport) => void;
  #resolveMended!: (report: SwitchoverReport) => void;
  #reported = false;
  /** The guest stands on the destination as it stood here. */
  #leavesPaused = false;
  #forgotten: Promise<void> = Promise.resolve();

  constructor(options: SwitchoverOptions) {
    this.#options = options;
    this.outcome = new Promise((resolve) => {
      this.#resolveOutcome = resolve;
    });
    this.mended = new Promise((resolve) => {
      this.#resolveMended = resolve;
    });
    const { state, actions } = startSource('precopy', options.limits ?? LIMITS, machineNow(), options.hands);
    this.#first = actions;
    this.#machine = new Machine(state, {
      step: stepSource,
      deadline: sourceDeadline,
      perform: (action) => void this.#carryOut(action).catch((error: unknown) => this.fail(error)),
      tick: { type: 'tick' },
    });
  }

  get state(): SourceState {
    return this.#machine.state;
  }

  /** Resolves when the source's hypervisor has been let go of, if it was to be. */
  get forgotten(): Promise<void> {
    return this.#forgotten;
  }

  begin(): void {
    this.#machine.begin(this.#first);
  }

  tell(event: SourceEvent): void {
    this.#machine.dispatch(event);
  }

  toPostcopy(): void {
    this.#machine.amend(sourceToPostcopy);
  }

  /** Whatever makes this side unable to go on. */
  fail(error: unknown): void {
    const facts = this.#isLost(error) ? linkLost(error.message) : factsOf(error);
    const { code, message } = facts;
    this.#options.causes.met(facts);
    if (ENDING_BY_FAILURE.has(this.state.phase)) this.#options.log.warn({ err: error }, 'failure');
    this.tell({ type: 'failed', code, why: message });
  }

  /** While both sides get ready, what is late is an answer. */
  #isLost(error: unknown): error is WireError {
    if (!(error instanceof WireError)) return false;
    return (
      error.code === 'E_CLOSED' || (error.code === 'E_TIMEOUT' && this.#options.account.phase !== 'setup')
    );
  }

  /** Where only the way to the guest is gone, the guest's hypervisor lives: it needs nobody to send the rest. */
  guestGone(error: GuestError): void {
    const { code, message: why } = error;
    const { phase } = this.state;
    if ((phase === 'committed' || phase === 'finishing') && code === 'E_GUEST_UNREACHABLE') {
      this.#options.account.note(sentences(`After the commit: ${why}`, 'The migration went on without it.'));
      return;
    }
    this.#options.causes.met(factsOf(error));
    this.tell({ type: code === 'E_GUEST_GONE' ? 'guest-gone' : 'failed', code, why });
  }

  /** Nothing is decided any more. */
  stop(): void {
    this.#machine.stop();
  }

  async #carryOut(action: SourceAction): Promise<void> {
    switch (action.type) {
      case 'journal':
        await this.#write(action.record);
        return;
      case 'send':
        this.#send(action.message);
        return;
      case 'rollback':
        await this.#rollback();
        return;
      case 'forget':
        this.#forgotten = this.#forget();
        return;
      case 'note':
        this.#options.account.note(action.text);
        return;
      case 'report':
        if (this.#reported && action.outcome !== 'attention') this.#resolveMended(action);
        this.#reported = true;
        this.#resolveOutcome(action);
        return;
    }
  }

  async #write(record: SourceRecordState): Promise<void> {
    // SEALED says it, which follows.
    const learned = record === 'sealed' ? this.#learnRunState() : Promise.resolve();
    learned.catch(() => {});
    try {
      await this.#options.departure.journal.write(record, this.state.mode);
    } catch (error) {
      this.#options.log.error({ err: error }, 'journal');
      const { message, remedy } = factsOf(error);
      this.#options.account.note(sentences(message, remedy));
      this.tell({ type: 'journal-failed', record });
      return;
    }
    await learned;
    this.tell({ type: 'journal-written', record });
  }

  /** How the guest stood when the migration stopped it: it may have been stopped, or let run, since it was described. */
  async #learnRunState(): Promise<void> {
    const { guest, description } = this.#options.departure;
    const { running } = description;
    const found = (await guest.runState?.()) ?? { running, word: '' };
    this.#leavesPaused = !found.running;
    const remark = runStateRemark(running, found);
    if (remark !== undefined) this.#options.account.note(remark);
  }

  #send(message: ToDest): void {
    const { guest, destination } = this.#options.departure;
    const { control } = destination;
    if (message.type === 'commit') guest.committed?.();
    if (control.link.state !== 'open') return;
    switch (message.type) {
      case 'sealed':
        control.send({
          type: 'sealed',
          paused: this.#leavesPaused,
          announce: { ips: this.#options.request.announceIps, nics: [] },
        });
        return;
      case 'commit':
        this.#options.account.times.commit();
        control.send({ type: 'commit' });
        return;
      case 'discard':
        control.send({ type: 'discard', reason: message.why.slice(0, MAX_SENTENCE) });
        return;
    }
  }

  async #rollback(): Promise<void> {
    const { account, causes, departure, stopTraffic } = this.#options;
    causes.givenUp(account.phase);
    account.enter('rollback');
    stopTraffic('the migration was given up');
    try {
      await departure.guest.rollback();
      const { abortedBy, remark } = departure.guest;
      if (remark !== undefined) account.note(remark);
      const cause = abortedBy && { code: abortedBy.code, why: abortedBy.message };
      this.tell({ type: 'rolled-back', cause });
    } catch (error) {
      const { code, message } = factsOf(error);
      // A guest that has ended cannot run twice, and there is nothing left to mend.
      const ended = code === 'E_GUEST_GONE';
      if (ended) causes.guestEnded();
      this.tell(ended ? { type: 'rolled-back' } : { type: 'rollback-failed', code, why: message });
    }
  }

  async #forget(): Promise<void> {
    const { account, departure, request } = this.#options;
    try {
      await departure.guest.forget({ destroy: request.destroySource });
    } catch (error) {
      account.note(`The source's hypervisor could not be ended: ${factsOf(error).message}`);
    }
  }
}
