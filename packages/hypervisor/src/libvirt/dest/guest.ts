/**
 * The guest that enters, where libvirt keeps it: the source's libvirt tells this host's, through the agents, to make the
 * domain; its QEMU then listens in the agent's directory, and gets the items as a stream again.
 *
 *     idle ── open ──▶ loading ── all state applied ──▶ ready (loaded, paused) ── run ──▶ running
 *                         │                                │
 *                         └────────── discard ◀────────────┘
 *
 * libvirt runs the domain when the source's calls to finish. After pre-copy that call is made to leave it paused, whatever
 * the source's libvirt says, and passes as soon as all is loaded; `run` then only resumes the domain. In post-copy it
 * waits here for `run`. So no guest runs before the commit. Until it has finished libvirt ends the domain when the
 * source's connection to it ends: that is `discard`.
 *
 * Each of these steps has a file of its own.
 */
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestError } from '@vmferry/engine/errors';
import type {
  DestEvent,
  DestGuest,
  DestItem,
  DestPlan,
  Examination,
  GuestDescription,
  Nic,
  PrepareResult,
  SideKind,
} from '@vmferry/engine/guest';
import type { Millis } from '@vmferry/engine/units';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { openLibvirt } from '../answer.ts';
import type { DomainHappening } from '../domain-events.ts';
import { readInterfaces } from '../domain-xml.ts';
import { asking } from '../errors.ts';
import type { ImageRecord } from '../images/record.ts';
import { daemonSockets, type LibvirtOptions, parseDomainAddress } from '../options.ts';
import type { DestPolicy } from '../preflight/dest.ts';
import { DestConnections } from './connections.ts';
import { discard } from './discard.ts';
import { DestDomain } from './domain.ts';
import { daemonGone, gone, otherLibvirt } from './faults.ts';
import { Intake } from './intake.ts';
import { DestLook } from './look.ts';
import { Run } from './run.ts';

/** libvirt sees by itself that the guest's stream broke. */
const SUSPEND_MS = 1000;

export class LibvirtDestGuest implements DestGuest {
  readonly gone: Promise<GuestError>;
  /** Where a session notes the images that it creates. */
  readonly #imagesOf: ((session: string) => ImageRecord) | undefined;
  readonly #domain: DestDomain;
  readonly #look: DestLook;
  readonly #connections: DestConnections;
  readonly #intake: Intake;
  readonly #run: Run;
  #resolveGone: (error: GuestError) => void = () => {};

  /** @throws GuestError when libvirt cannot be had */
  static async connect(
    text: string,
    options: LibvirtOptions,
    policy: DestPolicy,
    imagesOf?: (session: string) => ImageRecord,
  ): Promise<LibvirtDestGuest> {
    return await asking(async () => {
      const { name, uri } = parseDomainAddress(text, options.uri);
      // The name is a peer's, and what the agent connects to is its own configuration's.
      if (uri !== options.uri) throw otherLibvirt(uri);
      daemonSockets(uri);
      const connection = await openLibvirt(uri);
      return new LibvirtDestGuest(connection, name, { ...options, uri }, policy, imagesOf);
    });
  }

  private constructor(
    connection: LibvirtConnection,
    name: string,
    options: LibvirtOptions,
    policy: DestPolicy,
    imagesOf: ((session: string) => ImageRecord) | undefined,
  ) {
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
    });
    this.#imagesOf = imagesOf;
    const domain = new DestDomain(connection, name, options.uri);
    const look = new DestLook(domain, options, policy);
    const connections = new DestConnections(domain, options, this.#resolveGone);
    this.#domain = domain;
    this.#look = look;
    this.#connections = connections;
    this.#intake = new Intake({ domain, look, connections, gone: this.gone });
    this.#run = new Run(domain, this.#intake, connections);
    connection.once('close', (reason) => {
      if (reason !== 'client') this.#resolveGone(daemonGone(reason));
    });
  }

  get postcopyIsFinal(): boolean {
    return this.#look.postcopyIsFinal;
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#intake.stream.events;
  }

  async prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult> {
    return await asking(() => this.#look.prepare(description, plan));
  }

  async open(_: DestPlan, session: string): Promise<void> {
    const record = () => this.#imagesOf?.(session);
    await asking(() => this.#intake.open((happening) => this.#watch(happening), record));
  }

  #watch(happening: DomainHappening): void {
    if (happening.type !== 'lifecycle' || happening.change.event !== 'stopped') return;
    this.#resolveGone(gone(`the domain ended on the destination (${happening.change.detail})`));
  }

  connectSide(kind: SideKind): Promise<Duplex> {
    return this.#connections.connectSide(kind);
  }

  apply(item: DestItem): Promise<void> {
    return this.#intake.apply(item);
  }

  ready(): Promise<void> {
    return this.#intake.ready();
  }

  complete(): Promise<void> {
    return this.#intake.complete();
  }

  async run(how: { paused: boolean }): Promise<{ readonly atMs: Millis }> {
    return await asking(() => this.#run.run(how));
  }

  async suspend(): Promise<void> {
    this.#intake.stream.close();
    const { calls } = this.#connections;
    // Where nobody is left to hear libvirt's answer, its connection must not end in the middle of the next attempt.
    if (calls) await Promise.race([calls.finished, calls.detached, sleep(SUSPEND_MS)]);
    this.#run.halted();
    await this.close();
  }

  async rejoin(description: GuestDescription): Promise<PrepareResult> {
    return await asking(async () => {
      const result = await this.#look.rejoin(description);
      if (result.ok) this.#run.promise();
      return result;
    });
  }

  /** Taps are made with the domain. */
  async places(): Promise<readonly Nic[]> {
    return await asking(async () => readInterfaces(await (await this.#domain.handle()).xml()));
  }

  /** Only the guest itself knows what its memory should hold. */
  examine(): Promise<Examination> {
    return Promise.resolve({ found: 'nothing' });
  }

  /** QEMU does, by itself, when libvirt has it run the guest. */
  announceSelf(): Promise<void> {
    return Promise.resolve();
  }

  async discard(): Promise<void> {
    const arrived = {
      domain: this.#domain,
      look: this.#look,
      intake: this.#intake,
      connections: this.#connections,
    };
    await discard(arrived, { promised: this.#run.promised });
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  async close(): Promise<void> {
    await this.#run.told();
    this.#connections.close();
    this.#intake.stream.close();
    await this.#connections.removeDirectory();
    await this.#intake.close();
    await this.#domain.close();
    // Of a guest of which it is not known that it is gone the disks stay.
    await this.#intake.images?.leave();
  }
}
