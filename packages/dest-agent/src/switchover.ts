/**
 * The destination's half of the switchover at work: the engine's machine is told what happens and decides, and what it
 * decides is carried out here: journal, messages, the guest run or discarded, the report.
 */
import type { Logger } from '@vmferry/agent-core/log';
import { Machine, machineNow } from '@vmferry/agent-core/machine';
import type { SessionJournal } from '@vmferry/agent-core/session-journal';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { byHand } from '@vmferry/engine/by-hand';
import { GuestError, sentences } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import type { DestRecordState } from '@vmferry/engine/journal/records';
import { destDeadline, destToPostcopy, startDest, stepDest } from '@vmferry/engine/switchover/dest';
import type { DestAction, DestEventIn, DestState } from '@vmferry/engine/switchover/dest-state';
import type { SwitchoverReport, ToSource } from '@vmferry/engine/switchover/protocol';
import type { ControlChannel } from '@vmferry/wire/control';
import type { Account } from './account.ts';
import type { Aftermath } from './aftermath.ts';
import type { Causes } from './causes.ts';
import { damaged, damageOf, failureOf } from './failures.ts';
import type { FaultTimes } from './fault-times.ts';
import type { Standing } from './orderly-end.ts';
import type { Receiver } from './receiver.ts';
import type { Whereabouts } from './whereabouts.ts';

/** Between two tries to end a guest that would not. */
const RETRY_MS = 5000;
const LIMITS = { loadMs: 120_000, outcomeMs: 60_000 };

export interface SwitchoverOptions {
  readonly guest: DestGuest;
  readonly journal: SessionJournal<'dest'>;
  readonly control: ControlChannel;
  readonly receiver: Pick<Receiver, 'pagesApplied' | 'close'>;
  readonly faults: Pick<FaultTimes, 'summary'>;
  readonly whereabouts: Whereabouts;
  readonly account: Account;
  readonly causes: Causes;
  readonly aftermath: Aftermath;
  readonly log: Logger;
}

export class Switchover {
  readonly #options: SwitchoverOptions;
  readonly #machine: Machine<DestState, DestEventIn, DestAction>;
  readonly #first: readonly DestAction[];
  /** The guest is to stand here as it stood on the source. */
  #paused = false;
  /** All state was applied, and the hypervisor loads it. */
  #loading: Promise<void> | undefined;
  #runs = false;
  #hasAllPages = false;
  /** When no page was missing any more. */
  #completeAtMs = 0;
  #guestGone = false;
  /** Why the journal could not be written, and what to do. */
  #journalFault: string | undefined;
  /** How a link to the source ended. */
  #lost: string | undefined;

  constructor(options: SwitchoverOptions) {
    this.#options = options;
    const { state, actions } = startDest('precopy', LIMITS, machineNow(), byHand(options.account.guest));
    this.#first = actions;
    this.#machine = new Machine(state, {
      step: stepDest,
      deadline: destDeadline,
      perform: (action) => void this.#carryOut(action).catch((error: unknown) => this.fail(error)),
      tick: { type: 'tick' },
    });
  }

  get standing(): Standing {
    const told = this.#options.account.report !== undefined;
    switch (this.#machine.state.phase) {
      case 'receiving':
      case 'voting':
        return 'loose';
      case 'ready':
      case 'accepting':
      case 'starting':
      case 'running':
        return told && (this.#hasAllPages || this.#guestGone || this.#lost !== undefined)
          ? 'over'
          : 'promised';
      default:
        return told ? 'over' : 'ending';
    }
  }

  begin(): void {
    this.#machine.begin(this.#first);
  }

  tell(event: DestEventIn): void {
    this.#machine.dispatch(event);
  }

  /** The guest's state goes before its memory. */
  toPostcopy(): void {
    const final = this.#options.guest.postcopyIsFinal ?? false;
    this.#machine.amend((state) => destToPostcopy(state, { final }));
  }

  /** All state was applied. */
  async load(): Promise<void> {
    const { account, guest, whereabouts } = this.#options;
    account.enter('switchover');
    await whereabouts.find(guest);
    this.#loading = guest.ready();
    await this.#loading;
    this.tell({ type: 'guest-loaded' });
  }

  sealed(paused: boolean): void {
    this.#paused = paused;
    this.tell({ type: 'message', message: { type: 'sealed' } });
  }

  /** All pages were applied. */
  async complete(): Promise<void> {
    await this.#options.guest.complete();
    this.#hasAllPages = true;
    if (this.#runs) this.#guestComplete();
  }

  /** That only the way to its hypervisor is gone is not the guest's end: a committed one may have to run here. */
  guestGone(error: GuestError): void {
    this.#guestGone = true;
    this.#options.causes.met(error);
    const type = error.code === 'E_GUEST_GONE' ? 'guest-gone' : 'failed';
    this.tell({ type, code: error.code, why: error.message });
  }

  /** A link to the source ended. */
  linkLost(how: string): void {
    this.#lost ??= how;
    if (this.#options.account.report) return;
    const why = this.#lost;
    const tell = (): void => this.#tellLost(why);
    // A guest that only this side can run is not given up while it loads: all of its state is here.
    const { mode, final } = this.#machine.state;
    if (mode === 'postcopy' && final && this.#loading) void this.#loading.then(tell, tell);
    else tell();
  }

  /** Whatever makes this side unable to go on. */
  fail(error: unknown): void {
    this.#options.log.error({ err: error }, 'failure');
    this.#options.causes.met(error);
    this.tell({ type: 'failed', ...failureOf(error) });
  }

  #tellLost(how: string): void {
    const why = `The link to the source was lost: ${how}`;
    this.tell({ type: 'link-lost', code: 'E_LINK_LOST', why });
  }

  #guestComplete(): void {
    this.#completeAtMs = wallClockMs();
    this.tell({ type: 'guest-complete' });
  }

  async #carryOut(action: DestAction): Promise<void> {
    switch (action.type) {
      case 'journal':
        await this.#write(action.record);
        return;
      case 'send':
        await this.#send(action.message);
        return;
      case 'run-guest':
        await this.#run();
        return;
      case 'discard-guest':
        await this.#discard();
        return;
      case 'announce':
        this.#announce();
        return;
      case 'note':
        this.#options.account.note(action.text);
        return;
      case 'report':
        await this.#finish(action);
        return;
    }
  }

  async #write(record: DestRecordState): Promise<void> {
    try {
      await this.#options.journal.write(record, this.#machine.state.mode);
      this.tell({ type: 'journal-written', record });
    } catch (error) {
      this.#options.log.error({ err: error }, 'journal');
      if (error instanceof GuestError) this.#journalFault = sentences(error.message, error.remedy);
      this.tell({ type: 'journal-failed', record });
    }
  }

  async #send(message: ToSource): Promise<void> {
    const { causes, control, guest } = this.#options;
    if (control.link.state !== 'open') return;
    switch (message.type) {
      case 'ready':
        control.send({ type: 'ready' });
        return;
      case 'running':
        control.send({
          type: 'running',
          atMs: message.atMs,
          ...(guest.examines ? { examines: true } : {}),
        });
        return;
      case 'complete':
        await this.#sendComplete();
        return;
      case 'run-failed':
        causes.tellSource(message, 'neither');
        return;
      case 'discarded': {
        const { state } = this.#machine;
        const code = state.phase === 'discarded' ? state.cause.code : 'E_GUEST_FAILED';
        causes.tellSource({ code, why: message.why }, 'unknown');
        control.send({ type: 'discarded', notes: this.#remarks() });
        return;
      }
    }
  }

  async #sendComplete(): Promise<void> {
    const { aftermath, control, faults, receiver, whereabouts } = this.#options;
    // Whoever is told of the end finds the hypervisor as it was set before.
    const [announced, examined] = await Promise.all([
      whereabouts.announced(),
      aftermath.examine(),
      aftermath.settle(),
    ]);
    if (control.link.state !== 'open') return;
    control.send({
      type: 'complete',
      atMs: this.#completeAtMs,
      faults: faults.summary(),
      announce: {
        frames: announced.frames,
        interfaces: [...announced.interfaces],
        underWay: announced.underWay,
      },
      pagesApplied: receiver.pagesApplied,
      notes: [...(examined.found === 'sound' ? [examined.words] : []), ...this.#remarks()],
      ...(examined.found === 'damage' ? { damage: damageOf(examined.error) } : {}),
    });
  }

  #remarks(): string[] {
    const { remark } = this.#options.guest;
    return [remark, this.#journalFault].filter((text) => text !== undefined);
  }

  async #run(): Promise<void> {
    const { account, causes, guest } = this.#options;
    try {
      const { atMs } = await guest.run({ paused: this.#paused });
      account.enter('postcopy');
      this.#runs = true;
      this.tell({ type: 'guest-running', atMs });
      // In pre-copy all pages were there before.
      if (this.#hasAllPages) this.#guestComplete();
      // While the guest was being run that was nothing to stop for.
      else if (this.#lost !== undefined && this.#machine.state.mode === 'postcopy')
        this.#tellLost(this.#lost);
    } catch (error) {
      causes.met(error);
      this.tell({ type: 'run-failed', ...failureOf(error) });
    }
  }

  async #discard(): Promise<void> {
    const { guest, receiver, whereabouts } = this.#options;
    receiver.close();
    whereabouts.close();
    try {
      await guest.discard();
      await guest.close();
      this.tell({ type: 'guest-discarded' });
    } catch (error) {
      this.tell({ type: 'discard-failed', ...failureOf(error) });
    }
  }

  #announce(): void {
    const { guest, log, whereabouts } = this.#options;
    whereabouts.announce();
    // The hypervisor's own announcement comes on top; it is no reason to fail.
    guest.announceSelf().catch((error: unknown) => log.warn({ err: error }, 'announce-self'));
  }

  async #finish(report: SwitchoverReport): Promise<void> {
    const { account, causes, control, guest, journal, log } = this.#options;
    const { outcome, why, guestRunsOn } = report;
    const { state } = this.#machine;
    if (account.report && state.phase === 'discarding') {
      this.#tryAgain();
      return;
    }
    const ended = outcome === 'completed' ? await this.#lookBack(report) : report;
    // The source holds pages and would wait for ever.
    if (outcome === 'attention' && state.phase === 'running') {
      if (report.code !== null) causes.tellSource({ code: report.code, why }, guestRunsOn);
      // What can be finished later is left so.
      await guest.suspend?.().catch((error: unknown) => log.warn({ err: error }, 'suspend'));
    }
    // One that was given up may never run here; of any other the operator decides.
    if (outcome === 'attention' && state.phase !== 'discarding') guest.handOver?.();
    // What could not be ended here is no reason to wait for the source, which has the guest: without the link it rolls back.
    if (outcome === 'attention' && state.phase === 'discarding') {
      const { cause } = state;
      causes.tellSource({ code: cause.code, why: sentences(cause.why, why) }, guestRunsOn);
      void control.link.close();
      this.#tryAgain();
    }
    await journal.close();
    if (outcome !== 'attention') {
      this.#machine.stop();
      await guest.close();
    }
    account.enter('completion');
    if (account.report && state.phase === 'discarded') account.mended(ended);
    else account.end(ended.outcome, ended);
  }

  /** Its hypervisor may answer again: what holds the guest's disks and memory is not to wait for an operator then. */
  #tryAgain(): void {
    setTimeout(() => this.tell({ type: 'retry' }), RETRY_MS).unref();
  }

  /** The guest runs here, and all of it is there: gives the report for what was found then. */
  async #lookBack(report: SwitchoverReport): Promise<SwitchoverReport> {
    const { account, aftermath, whereabouts } = this.#options;
    await aftermath.settle();
    account.announced(await whereabouts.announced());
    for (const remark of this.#remarks()) account.note(remark);
    const examined = await aftermath.examine();
    account.examined(examined);
    return examined.found === 'damage' ? damaged(examined.error) : report;
  }
}
