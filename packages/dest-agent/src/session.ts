/**
 * One migration as the destination sees it.
 *
 *     opening ── accepted ──▶ attaching ── start ──▶ receiving ── the switchover machine ──▶ ended
 *        │ rejected: may be opened again
 *        └─────────────────────────────────────────────────────────────────────────────────▶ ended
 *
 * Once started, the switchover machine of the engine decides everything that matters (`switchover.ts`); this module
 * takes in what comes over the session's streams, and has each part do what is its.
 */

import { type Logger, migrationLogger } from '@vmferry/agent-core/log';
import { endOf, type MigrationSummary, type RunningMigration } from '@vmferry/agent-core/operations';
import { SessionJournal } from '@vmferry/agent-core/session-journal';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import { GuestError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { DestGuest } from '@vmferry/engine/guest';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { bytes } from '@vmferry/engine/units';
import type { ControlChannel } from '@vmferry/wire/control';
import { WireError } from '@vmferry/wire/errors';
import type { Frame } from '@vmferry/wire/frame';
import { type SessionIdentity, sameSecret } from '@vmferry/wire/handshake';
import type { Link } from '@vmferry/wire/link';
import { type ControlMessage, type TunnelRole, tunnelRoles } from '@vmferry/wire/messages';
import { Account } from './account.ts';
import { Admission, type Admitted } from './admission.ts';
import { Aftermath } from './aftermath.ts';
import { Causes } from './causes.ts';
import { failureOf } from './failures.ts';
import { FaultTimes } from './fault-times.ts';
import { finishHalted } from './finish-halted.ts';
import type { DestGuestFactory } from './guests.ts';
import type { EndingSession, Standing } from './orderly-end.ts';
import { Receiver } from './receiver.ts';
import { Streams } from './streams.ts';
import { Switchover } from './switchover.ts';
import { Whereabouts } from './whereabouts.ts';

/** From the break of a hypervisor's socket to the news that it is gone. */
const GONE_MS = 500;
/** The same once the guest was promised, when nothing is lost by waiting: libvirt tells of an end when all of it is over. */
const PROMISED_GONE_MS = 5000;

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

/** What there is from the migration's start on. */
interface Begun {
  readonly receiver: Receiver;
  readonly switchover: Switchover;
}

export class DestSession implements RunningMigration, EndingSession {
  readonly #options: SessionOptions;
  readonly #control: ControlChannel;
  readonly #log: Logger;
  readonly #account: Account;
  readonly #admission: Admission;
  readonly #causes: Causes;
  readonly #faults = new FaultTimes();
  readonly #streams: Streams;
  readonly #whereabouts: Whereabouts;
  #begun: Begun | undefined;
  /** From the source's word on: the journal has to be opened first. */
  #started = false;
  #finishesHalted = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    const { control, guests, bufferBytes, identity, tls } = options;
    const log = migrationLogger(options.log, { session: identity.session, guest: '' });
    const account = new Account({ link: () => ({ streams: this.#streams.count, tls }), log });
    this.#control = control;
    this.#log = log;
    this.#account = account;
    this.#causes = new Causes(control, account);
    this.#streams = new Streams(log);
    this.#whereabouts = new Whereabouts(log);
    const whereabouts = this.#whereabouts;
    this.#admission = new Admission({ control, guests, bufferBytes, account, whereabouts, log });
    control.onMessage = (message) => {
      this.#onMessage(message).catch((error: unknown) => this.#fail(error));
    };
    void control.link.closed.then(({ error }) => this.#onLinkClosed(error));
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
    this.#begun?.switchover.tell({ type: 'cancel' });
  }

  /** See `orderly-end`. The same for the next four. */
  get standing(): Standing {
    if (this.#begun) return this.#begun.switchover.standing;
    if (this.told) return 'over';
    return this.#finishesHalted ? 'promised' : 'loose';
  }

  get receivedBytes(): number {
    return this.#streams.receivedBytes;
  }

  get told(): boolean {
    return this.#account.report !== undefined;
  }

  get announced(): Promise<void> {
    return this.#whereabouts.over;
  }

  giveUp(): void {
    const why = 'The destination agent was told to end.';
    if (this.#begun) this.#begun.switchover.tell({ type: 'failed', code: 'E_LINK_LOST', why });
    else void this.#control.link.close();
  }

  /** Takes a further stream in. False when the peer does not know the secret or the stream has its place taken. */
  attach(link: Link, message: ControlMessage<'attach'>): boolean {
    const { role, index } = message.stream;
    const streams = this.#admission.admitted?.dataStreams ?? 0;
    if (!sameSecret(this.#options.identity.secret, message.secret)) return false;
    const place = role === 'data' && index < streams ? index : role === 'express' ? streams : -1;
    if (place < 0 || this.#begun || !this.#streams.put(link, place)) return false;
    void link.closed.then(({ error }) => this.#onLinkClosed(error));
    return true;
  }

  /** Whether this asks for a connection of the hypervisors' own, from somebody who may. */
  expectsTunnel({ stream, secret }: ControlMessage<'attach'>): boolean {
    const roles: readonly string[] = tunnelRoles;
    if (!roles.includes(stream.role) || !sameSecret(this.#options.identity.secret, secret)) return false;
    const begun = this.#begun !== undefined || this.#admission.admitted?.rejoins === true;
    return this.#admission.guest?.connectSide !== undefined && begun && !this.told;
  }

  /** Carries such a connection, whose other end this host's driver finds; `attached` says that it is there. */
  carry(link: Link, role: string, attached: () => void): Promise<void> {
    const connect = () => this.#admission.guest!.connectSide!(role as TunnelRole);
    return this.#streams.carry(link, role, connect, attached);
  }

  /** A frame of a data or express stream. */
  onFrame(frame: Frame, link: Link): void {
    const stream = this.#streams.placeOf(link);
    if (stream < 0 || !this.#begun) {
      link.drop(new WireError('E_FRAME', 'pages came before the migration was started'));
      return;
    }
    this.#begun.receiver.pages(frame, link, stream);
  }

  onOpaque(frame: Frame, link: Link): void {
    const tunnel = this.#streams.tunnelOf(link);
    if (tunnel) {
      tunnel.onFrame(frame);
      return;
    }
    this.#begun?.receiver.opaque(frame, link);
  }

  async #onMessage(message: ControlMessage): Promise<void> {
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
        this.#need().receiver.announce(message);
        return;
      case 'layout':
        this.#need().receiver.layout({
          blocks: message.blocks.map((block) => ({
            name: block.name,
            bytes: bytes(block.bytes),
            hostPageBytes: bytes(block.hostPageBytes),
          })),
        });
        return;
      case 'state-complete': {
        const { receiver, switchover } = this.#need();
        if (message.pagesFollow) switchover.toPostcopy();
        await receiver.milestone({ type: 'state-complete', pagesFollow: message.pagesFollow });
        await switchover.load();
        return;
      }
      case 'end': {
        const { receiver, switchover } = this.#need();
        await receiver.milestone({ type: 'end' });
        await switchover.complete();
        return;
      }
      case 'sealed':
        this.#begun?.switchover.sealed(message.paused);
        return;
      case 'commit':
        this.#begun?.switchover.tell({ type: 'message', message: { type: 'commit' } });
        return;
      case 'discard':
        await this.#onDiscard(message.reason);
        return;
      case 'failure': {
        const why = message.error.message;
        this.#begun?.switchover.tell({ type: 'failed', code: 'E_GUEST_FAILED', why });
        return;
      }
      default:
        return;
    }
  }

  async #start(): Promise<void> {
    const { admitted } = this.#admission;
    const { session } = this.#options.identity;
    if (!admitted || this.#started)
      throw new PayloadError('the migration cannot be started twice, or before it was opened');
    this.#started = true;
    const [account, control, streams] = [this.#account, this.#control, this.#streams];
    if (admitted.rejoins) {
      this.#finishesHalted = true;
      await finishHalted({ admitted, session, control, streams, account });
      return;
    }
    const { guest, plan } = admitted;
    account.enter('setup');
    account.begin('auto');
    const { stateDir } = this.#options;
    const journal = await SessionJournal.open({ stateDir, session, guest: account.guest, role: 'dest' });
    // The source gave up meanwhile.
    if (account.report) {
      await journal.close();
      return;
    }
    const { switchover } = this.#begin(admitted, journal);
    void guest.gone.then((error) => switchover.guestGone(error));
    await guest.open(plan, session);
    void this.#forwardEvents(guest);
    account.enter('precopy');
    control.send({ type: 'started' });
  }

  #begin({ guest, dataStreams }: Admitted, journal: SessionJournal<'dest'>): Begun {
    const [account, causes, control] = [this.#account, this.#causes, this.#control];
    const [faults, log, whereabouts] = [this.#faults, this.#log, this.#whereabouts];
    const receiver = new Receiver({
      ...{ guest, dataStreams, faults },
      bufferBytes: this.#options.bufferBytes,
      onFailure: (error) => void this.#receiverFailed(guest, error),
    });
    const aftermath = new Aftermath(guest, log);
    const switchover = new Switchover({
      ...{ guest, journal, control, receiver, faults, whereabouts, account, causes, aftermath, log },
    });
    this.#begun = { receiver, switchover };
    switchover.begin();
    return this.#begun;
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

  async #onDiscard(why: string): Promise<void> {
    if (!this.#begun) await this.#letGo();
    else this.#begun.switchover.tell({ type: 'message', message: { type: 'discard', why } });
  }

  /** Nothing was begun: the guest's hypervisor is left as it was found. */
  async #letGo(): Promise<void> {
    this.#whereabouts.close();
    try {
      await this.#admission.guest?.close();
    } catch (error) {
      this.#log.warn({ err: error }, 'a hypervisor could not be let go of');
    }
    this.#account.end('refused', null);
  }

  #onLinkClosed(error: WireError | undefined): void {
    const how = error?.message ?? 'the source agent closed the connection';
    if (this.#begun) this.#begun.switchover.linkLost(how);
    else if (!this.told) void this.#letGo();
  }

  /** A stream that breaks is often the first sign of a hypervisor's end, which then is told as that. */
  async #receiverFailed(guest: DestGuest, error: unknown): Promise<void> {
    const promised = this.#begun?.switchover.standing === 'promised';
    const wait = new Promise((resolve) => setTimeout(resolve, promised ? PROMISED_GONE_MS : GONE_MS));
    await Promise.race([guest.gone, wait]);
    this.#fail(error);
  }

  #fail(error: unknown): void {
    if (this.#begun) {
      this.#begun.switchover.fail(error);
      return;
    }
    this.#log.error({ err: error }, 'failure');
    this.#causes.met(error);
    if (this.#control.link.state === 'open') {
      if (error instanceof GuestError) {
        this.#causes.tellSource(failureOf(error), 'source');
        void this.#control.link.close();
      } else this.#control.link.drop(new WireError('E_MESSAGE', failureOf(error).why));
    }
    void this.#letGo();
  }

  #need(): Begun {
    if (!this.#begun) throw new PayloadError('the migration was not started');
    return this.#begun;
  }
}
