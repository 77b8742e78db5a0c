/**
 * One migration as the destination sees it.
 *
 *     opening ── accepted ──▶ attaching ── start ──▶ receiving ── the switchover machine ──▶ ended
 *        │ rejected: may be opened again
 *        └─────────────────────────────────────────────────────────────────────────────────▶ ended
 *
 * Once started, the switchover machine of the engine decides everything that matters; this module carries
 * its decisions out and tells it what happened.
 */

import { type Logger, migrationLogger } from '@vmferry/agent-core/log';
import type { Machine } from '@vmferry/agent-core/machine';
import { machineNow, Machine as SwitchoverMachine } from '@vmferry/agent-core/machine';
import { endOf, type MigrationSummary, type RunningMigration } from '@vmferry/agent-core/operations';
import { SessionJournal } from '@vmferry/agent-core/session-journal';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import { GuestError, type GuestRunsOn } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { DestGuest, Examination } from '@vmferry/engine/guest';
import type { MigrationReport } from '@vmferry/engine/report/report';
import {
  type DestAction,
  type DestEventIn,
  type DestState,
  destDeadline,
  destToPostcopy,
  startDest,
  stepDest,
} from '@vmferry/engine/switchover/dest';
import type { Failure, SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import { bytes } from '@vmferry/engine/units';
import type { ControlChannel } from '@vmferry/wire/control';
import { WireError } from '@vmferry/wire/errors';
import type { Frame } from '@vmferry/wire/frame';
import { type SessionIdentity, sameSecret } from '@vmferry/wire/handshake';
import type { Link } from '@vmferry/wire/link';
import { type ControlMessage, type TunnelRole, tunnelRoles } from '@vmferry/wire/messages';
import { Account } from './account.ts';
import { Admission } from './admission.ts';
import { damaged, damageOf, failureOf, unexamined } from './failures.ts';
import { FaultTimes } from './fault-times.ts';
import { finishHalted } from './finish-halted.ts';
import type { DestGuestFactory } from './guests.ts';
import type { EndingSession, Standing } from './orderly-end.ts';
import { Receiver } from './receiver.ts';
import { Streams } from './streams.ts';
import { Whereabouts } from './whereabouts.ts';

const LIMITS = { loadMs: 120_000, outcomeMs: 60_000 };
/** From the break of a hypervisor's socket to the news that it is gone. */
const GONE_MS = 500;

export interface SessionOptions {
  readonly identity: SessionIdentity;
  readonly control: ControlChannel;
  readonly peer: string;
  readonly tls: boolean;
  readonly stateDir: string;
  readonly bufferBytes: number;
  readonly guests: DestGuestFactory;
  readonly log: Logger;
}

export class DestSession implements RunningMigration, EndingSession {
  readonly #options: SessionOptions;
  readonly #control: ControlChannel;
  readonly #account: Account;
  readonly #faults = new FaultTimes();
  readonly #admission: Admission;
  readonly #streams: Streams;
  readonly #whereabouts: Whereabouts;
  readonly #log: Logger;
  #receiver: Receiver | undefined;
  #machine: Machine<DestState, DestEventIn, DestAction> | undefined;
  #journal: SessionJournal<'dest'> | undefined;
  #settled: Promise<void> | undefined;
  #examined: Promise<Examination> | undefined;
  #finishingAgain = false;
  #guestGone = false;
  /** How a link to the source ended. */
  #lost: string | undefined;
  /** All state was applied, and the hypervisor loads it. */
  #loading: Promise<void> | undefined;
  #paused = false;
  #runs = false;
  #hasAllPages = false;
  /** When there was nothing left to wait for but the announcements. */
  #completeAtMs = 0;
  /** The first failure that came with a remedy. */
  #failure: GuestError | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#control = options.control;
    this.#log = migrationLogger(options.log, { session: options.identity.session, guest: '' });
    this.#account = new Account({
      link: () => ({ streams: this.#streams.count, tls: options.tls }),
      log: this.#log,
    });
    this.#streams = new Streams(this.#log);
    this.#whereabouts = new Whereabouts(this.#log);
    this.#admission = new Admission({
      control: options.control,
      guests: options.guests,
      bufferBytes: options.bufferBytes,
      account: this.#account,
      whereabouts: this.#whereabouts,
      log: this.#log,
    });
    options.control.onMessage = (message) => this.#onMessage(message);
    void options.control.link.closed.then(({ error }) => this.#onLinkClosed(error));
  }

  get done(): Promise<MigrationReport> {
    return this.#account.done;
  }

  get summary(): MigrationSummary {
    const { guest, phase, report, startedAt } = this.#account;
    return {
      id: this.#options.identity.session,
      role: 'dest',
      guest,
      peer: this.#options.peer,
      strategy: report?.strategy ?? 'auto',
      phase,
      startedAt,
      ...endOf(startedAt, report),
    };
  }

  events(): AsyncIterable<MigrationEvent> {
    return this.#account.events();
  }

  /** The source decides; a destination that is to give up tells it so. */
  cancel(): void {
    this.#machine?.dispatch({ type: 'cancel' });
  }

  /** See `orderly-end`. The same for the next three. */
  get standing(): Standing {
    const told = this.told;
    switch (this.#machine?.state.phase) {
      case undefined:
        if (told) return 'over';
        return this.#finishingAgain ? 'promised' : 'loose';
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

  get receivedBytes(): number {
    return this.#streams.receivedBytes;
  }

  get told(): boolean {
    return this.#account.report !== undefined;
  }

  giveUp(): void {
    const why = 'The destination agent was told to end.';
    if (this.#machine) this.#machine.dispatch({ type: 'failed', code: 'E_LINK_LOST', why });
    else void this.#control.link.close();
  }

  /** Takes a further stream in. False when the peer does not know the secret or the stream has its place taken. */
  attach(link: Link, message: ControlMessage<'attach'>): boolean {
    const { role, index } = message.stream;
    const streams = this.#admission.admitted?.dataStreams ?? 0;
    if (!sameSecret(this.#options.identity.secret, message.secret)) return false;
    const place = role === 'data' && index < streams ? index : role === 'express' ? streams : -1;
    if (place < 0 || this.#machine || !this.#streams.put(link, place)) return false;
    void link.closed.then(({ error }) => this.#onLinkClosed(error));
    return true;
  }

  /** Whether this asks for a connection of the hypervisors' own, from somebody who may. */
  expectsTunnel({ stream, secret }: ControlMessage<'attach'>): boolean {
    const roles: readonly string[] = tunnelRoles;
    if (!roles.includes(stream.role) || !sameSecret(this.#options.identity.secret, secret)) return false;
    const begun = this.#machine !== undefined || this.#admission.admitted?.rejoins === true;
    return this.#guest?.connectSide !== undefined && begun && this.#account.report === undefined;
  }

  /** Carries such a connection, whose other end this host's driver finds; `attached` says that it is there. */
  carry(link: Link, role: string, attached: () => void): Promise<void> {
    const connect = () => this.#guest!.connectSide!(role as TunnelRole);
    return this.#streams.carry(link, role, connect, attached);
  }

  /** A frame of a data or express stream. */
  onFrame(frame: Frame, link: Link): void {
    const stream = this.#streams.placeOf(link);
    if (stream < 0 || !this.#receiver) {
      link.drop(new WireError('E_FRAME', 'pages came before the migration was started'));
      return;
    }
    this.#receiver.pages(frame, link, stream);
  }

  onOpaque(frame: Frame, link: Link): void {
    const tunnel = this.#streams.tunnelOf(link);
    if (tunnel) {
      tunnel.onFrame(frame);
      return;
    }
    this.#receiver?.opaque(frame, link);
  }

  get #guest(): DestGuest | undefined {
    return this.#admission.guest;
  }

  #onMessage(message: ControlMessage): void {
    this.#handle(message).catch((error: unknown) => this.#fail(error));
  }

  async #handle(message: ControlMessage): Promise<void> {
    switch (message.type) {
      case 'clock': {
        const t1 = wallClockMs();
        this.#control.send({ type: 'clock-reply', t0: message.t0, t1, t2: wallClockMs() });
        return;
      }
      case 'probe':
        this.#admission.probe(message);
        return;
      case 'open':
        await this.#admission.open(message);
        return;
      case 'start':
        await this.#start();
        return;
      case 'barrier':
        this.#need().announce(message);
        return;
      case 'layout':
        this.#need().layout({
          blocks: message.blocks.map((block) => ({
            name: block.name,
            bytes: bytes(block.bytes),
            hostPageBytes: bytes(block.hostPageBytes),
          })),
        });
        return;
      case 'state-complete':
        if (message.pagesFollow) {
          const final = this.#guest?.postcopyIsFinal ?? false;
          this.#machine?.amend((state) => destToPostcopy(state, { final }));
        }
        await this.#need().milestone({ type: 'state-complete', pagesFollow: message.pagesFollow });
        await this.#load();
        return;
      case 'end':
        await this.#need().milestone({ type: 'end' });
        await this.#complete();
        return;
      case 'sealed':
        this.#paused = message.paused;
        this.#machine?.dispatch({ type: 'message', message: { type: 'sealed' } });
        return;
      case 'commit':
        this.#machine?.dispatch({ type: 'message', message: { type: 'commit' } });
        return;
      case 'discard':
        await this.#onDiscard(message.reason);
        return;
      case 'failure':
        this.#machine?.dispatch({ type: 'failed', code: 'E_GUEST_FAILED', why: message.error.message });
        return;
      default:
        return;
    }
  }

  async #start(): Promise<void> {
    const { identity, stateDir } = this.#options;
    const { admitted } = this.#admission;
    if (!admitted || this.#machine)
      throw new PayloadError('the migration cannot be started twice, or before it was opened');
    if (admitted.rejoins) {
      this.#finishingAgain = true;
      await finishHalted({
        admitted,
        session: identity.session,
        control: this.#control,
        streams: this.#streams,
        account: this.#account,
      });
      return;
    }
    const { guest, plan, dataStreams } = admitted;
    this.#account.enter('setup');
    this.#account.begin('auto');
    const { session } = identity;
    const journal = await SessionJournal.open({
      stateDir,
      session,
      guest: this.#account.guest,
      role: 'dest',
    });
    this.#journal = journal;
    // The source gave up meanwhile.
    if (this.#account.report) {
      await journal.close();
      return;
    }
    const { state, actions } = startDest('precopy', LIMITS, machineNow());
    this.#machine = new SwitchoverMachine(state, {
      step: stepDest,
      deadline: destDeadline,
      perform: (action) => this.#perform(action),
      tick: { type: 'tick' },
    });
    this.#machine.begin(actions);
    this.#receiver = new Receiver({
      guest,
      dataStreams,
      bufferBytes: this.#options.bufferBytes,
      faults: this.#faults,
      onFailure: (error) => void this.#receiverFailed(guest, error),
    });
    void guest.gone.then((error) => {
      this.#guestGone = true;
      this.#failure ??= error;
      // That only the way to its hypervisor is gone is not the guest's end: a committed one may have to run here.
      const type = error.code === 'E_GUEST_GONE' ? 'guest-gone' : 'failed';
      this.#machine?.dispatch({ type, code: error.code, why: error.message });
    });
    await guest.open(plan, session);
    void this.#forwardEvents(guest);
    this.#account.enter('precopy');
    this.#control.send({ type: 'started' });
  }

  async #forwardEvents(guest: DestGuest): Promise<void> {
    for await (const event of guest.events) {
      try {
        if (event.type === 'reply') this.#control.send({ type: 'reply', bytes: event.bytes });
        else if (this.#faults.asked(event.range))
          this.#control.send({ type: 'fault', ranges: [event.range] });
      } catch {
        // The link's end is told by the link.
        return;
      }
    }
  }

  async #load(): Promise<void> {
    this.#account.enter('switchover');
    await this.#whereabouts.find(this.#guest!);
    this.#loading = this.#guest!.ready();
    await this.#loading;
    this.#machine?.dispatch({ type: 'guest-loaded' });
  }

  async #complete(): Promise<void> {
    await this.#guest!.complete();
    this.#hasAllPages = true;
    if (this.#runs) this.#guestComplete();
  }

  #guestComplete(): void {
    this.#completeAtMs = wallClockMs();
    this.#machine?.dispatch({ type: 'guest-complete' });
  }

  #perform(action: DestAction): void {
    this.#carryOut(action).catch((error: unknown) => this.#fail(error));
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
        this.#account.note(action.text);
        return;
      case 'report':
        await this.#finish(action);
        return;
    }
  }

  async #write(record: Extract<DestAction, { type: 'journal' }>['record']): Promise<void> {
    try {
      await this.#journal!.write(record, this.#machine!.state.mode);
      this.#machine?.dispatch({ type: 'journal-written', record });
    } catch (error) {
      this.#log.error({ err: error }, 'journal');
      this.#machine?.dispatch({ type: 'journal-failed', record });
    }
  }

  async #send(message: Extract<DestAction, { type: 'send' }>['message']): Promise<void> {
    if (this.#control.link.state !== 'open') return;
    switch (message.type) {
      case 'ready':
        this.#control.send({ type: 'ready' });
        return;
      case 'running':
        this.#control.send({
          type: 'running',
          atMs: message.atMs,
          ...(this.#guest?.examines ? { examines: true } : {}),
        });
        return;
      case 'complete': {
        // Whoever is told of the end finds the hypervisor as it was set before.
        const [announced, examined] = await Promise.all([
          this.#whereabouts.announced,
          this.#examine(),
          this.#settle(),
        ]);
        if (this.#control.link.state !== 'open') return;
        this.#control.send({
          type: 'complete',
          atMs: this.#completeAtMs,
          faults: this.#faults.summary(),
          announce: { frames: announced.frames, interfaces: announced.interfaces },
          pagesApplied: this.#receiver?.pagesApplied ?? 0,
          ...(examined.found === 'sound' ? { notes: [examined.words] } : {}),
          ...(examined.found === 'damage' ? { damage: damageOf(examined.error) } : {}),
        });
        return;
      }
      case 'run-failed':
        this.#sendFailure(message, 'neither');
        return;
      case 'discarded': {
        const state = this.#machine?.state;
        const code = state?.phase === 'discarded' ? state.cause.code : 'E_GUEST_FAILED';
        this.#sendFailure({ code, why: message.why }, 'unknown');
        this.#control.send({ type: 'discarded' });
        return;
      }
    }
  }

  #sendFailure({ code, why }: Failure, guestRunsOn: GuestRunsOn): void {
    const remedy = this.#failure?.message === why ? this.#failure.remedy : "see the destination agent's log";
    this.#control.send({
      type: 'failure',
      error: { code, message: why, side: 'dest', phase: this.#account.phase, guestRunsOn, remedy },
    });
  }

  async #run(): Promise<void> {
    try {
      const { atMs } = await this.#guest!.run({ paused: this.#paused });
      this.#account.enter('postcopy');
      this.#runs = true;
      this.#machine?.dispatch({ type: 'guest-running', atMs });
      // In pre-copy all pages were there before.
      if (this.#hasAllPages) this.#guestComplete();
      // While the guest was being run that was nothing to stop for.
      else if (this.#lost !== undefined && this.#machine?.state.mode === 'postcopy')
        this.#linkLost(this.#lost);
    } catch (error) {
      if (error instanceof GuestError) this.#failure ??= error;
      this.#machine?.dispatch({ type: 'run-failed', ...failureOf(error) });
    }
  }

  async #discard(): Promise<void> {
    this.#receiver?.close();
    this.#whereabouts.close();
    try {
      await this.#guest?.discard();
      await this.#guest?.close();
      this.#machine?.dispatch({ type: 'guest-discarded' });
    } catch (error) {
      this.#machine?.dispatch({ type: 'discard-failed', ...failureOf(error) });
    }
  }

  #announce(): void {
    this.#whereabouts.announce();
    // The hypervisor's own announcement comes on top; it is no reason to fail.
    this.#guest?.announceSelf().catch((error: unknown) => this.#log.warn({ err: error }, 'announce-self'));
  }

  async #onDiscard(reason: string): Promise<void> {
    if (this.#machine) {
      this.#machine.dispatch({ type: 'message', message: { type: 'discard', why: reason } });
      return;
    }
    await this.#letGo();
  }

  /** Nothing was begun: the guest's hypervisor is left as it was found. */
  async #letGo(): Promise<void> {
    this.#whereabouts.close();
    try {
      await this.#guest?.close();
    } catch (error) {
      this.#log.warn({ err: error }, 'a hypervisor could not be let go of');
    }
    this.#account.end('refused', null);
  }

  async #finish(report: SwitchoverReport): Promise<void> {
    const { outcome } = report;
    let ended = report;
    if (outcome === 'completed') {
      await this.#settle();
      this.#account.announced(await this.#whereabouts.announced);
      const examined = await this.#examine();
      this.#account.examined(examined);
      if (examined.found === 'damage') ended = damaged(examined.error);
    }
    // The source holds pages and would wait for ever.
    if (outcome === 'attention' && this.#machine?.state.phase === 'running') {
      this.#tellSource(report);
      // What can be finished later is left so.
      await this.#guest?.suspend?.().catch((error: unknown) => this.#log.warn({ err: error }, 'suspend'));
    }
    // What could not be ended here is no reason to wait for the source, which has the guest: without the link it rolls back.
    if (outcome === 'attention' && this.#machine?.state.phase === 'discarding') {
      const { cause } = this.#machine.state;
      this.#tellSource({ ...report, code: cause.code, why: `${cause.why} ${report.why}` });
      void this.#control.link.close();
    }
    await this.#journal?.close();
    if (outcome !== 'attention') {
      this.#machine?.stop();
      await this.#guest?.close();
    }
    this.#account.enter('completion');
    this.#account.end(ended.outcome, ended);
  }

  /** An examination that cannot be made has not found the guest sound. */
  #examine(): Promise<Examination> {
    this.#examined ??= this.#guest!.examine().catch(
      (error: unknown): Examination => ({ found: 'damage', error: unexamined(error) }),
    );
    return this.#examined;
  }

  #settle(): Promise<void> {
    this.#settled ??= this.#guest!.settle().catch((error: unknown) =>
      this.#log.warn({ err: error }, 'settings'),
    );
    return this.#settled;
  }

  #tellSource({ code, why, guestRunsOn }: SwitchoverReport): void {
    if (code === null || this.#control.link.state !== 'open') return;
    this.#sendFailure({ code, why }, guestRunsOn);
  }

  #onLinkClosed(error: WireError | undefined): void {
    this.#lost ??= error?.message ?? 'the source agent closed the connection';
    if (this.#account.report) return;
    if (!this.#machine) {
      void this.#letGo();
      return;
    }
    const why = this.#lost;
    const tell = (): void => this.#linkLost(why);
    // A guest that only this side can run is not given up while it loads: all of its state is here.
    const { mode, final } = this.#machine.state;
    if (mode === 'postcopy' && final && this.#loading) void this.#loading.then(tell, tell);
    else tell();
  }

  #linkLost(why: string): void {
    this.#machine?.dispatch({
      type: 'link-lost',
      code: 'E_LINK_LOST',
      why: `The link to the source was lost: ${why}`,
    });
  }

  /** A stream that breaks is often the first sign of a hypervisor's end, which then is told as that. */
  async #receiverFailed(guest: DestGuest, error: unknown): Promise<void> {
    const wait = new Promise((resolve) => setTimeout(resolve, GONE_MS));
    await Promise.race([guest.gone, wait]);
    this.#fail(error);
  }

  #fail(error: unknown): void {
    this.#log.error({ err: error }, 'failure');
    if (error instanceof GuestError) this.#failure ??= error;
    const failure = failureOf(error);
    if (this.#machine) {
      this.#machine.dispatch({ type: 'failed', ...failure });
      return;
    }
    if (this.#control.link.state === 'open') {
      if (error instanceof GuestError) {
        this.#sendFailure(failure, 'source');
        void this.#control.link.close();
      } else this.#control.link.drop(new WireError('E_MESSAGE', failure.why));
    }
    void this.#letGo();
  }

  #need(): Receiver {
    if (!this.#receiver) throw new PayloadError('the migration was not started');
    return this.#receiver;
  }
}
