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
 */
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestError } from '@vmferry/engine/errors';
import type {
  DestEvent,
  DestGuest,
  DestItem,
  DestPlan,
  Examination,
  GuestDescription,
  LibvirtDescription,
  Nic,
  PrepareResult,
  SideKind,
} from '@vmferry/engine/guest';
import { type Millis, millis } from '@vmferry/engine/units';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { IncomingStream } from '../../qemu/incoming-stream.ts';
import { connectToQemu } from '../../qemu/migration-socket.ts';
import { answerOf, doneAnewIfLost, isLost, letGo, openLibvirt } from '../answer.ts';
import {
  DomainEvents,
  type DomainHappening,
  type MigrationEnding,
  migrationEnding,
} from '../domain-events.ts';
import { identityOf, readInterfaces } from '../domain-xml.ts';
import { asking, messageOf } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import type { ImageRecord } from '../images/record.ts';
import type { CreatedImages } from '../images/store.ts';
import { daemonSockets, type LibvirtOptions, parseDomainAddress } from '../options.ts';
import { type DestPolicy, type DestPreflight, destPreflight } from '../preflight/dest.ts';
import { parseDomainFacts } from '../preflight/domain-facts.ts';
import { notes, refusals } from '../preflight/finding.ts';
import { reconnect } from '../reconnect.ts';
import { Rendezvous } from '../rendezvous.ts';
import { CalledRpc } from '../rpc/relay.ts';

/** libvirt ends a domain that came to nothing by itself; QEMU takes its time under emulation. */
const DISCARD_MS = 30_000;
const POLL_MS = 50;
/** From being opened to being ready to be discarded: images are created in between. */
const OPENED_MS = 120_000;
/** libvirt finishes within fractions of a second. */
const UNDO_MS = 10_000;
/** From the guest's running here to the source's libvirt having been told. */
const FINISH_MS = 30_000;
/** libvirt sees by itself that the guest's stream broke. */
const SUSPEND_MS = 1000;

export class LibvirtDestGuest implements DestGuest {
  readonly gone: Promise<GuestError>;
  /** Another one once libvirtd was restarted. */
  #connection: LibvirtConnection;
  readonly #name: string;
  readonly #options: LibvirtOptions;
  readonly #policy: DestPolicy;
  /** Where a session notes the images that it creates. */
  readonly #imagesOf: ((session: string) => ImageRecord) | undefined;
  readonly #stream = new IncomingStream();
  readonly #local = new Set<Socket>();
  #rpc: CalledRpc | undefined;
  #preflight: DestPreflight | undefined;
  #images: CreatedImages | undefined;
  /** Settled when `open` has come to its end, whichever way. */
  #opening: Promise<unknown> = Promise.resolve();
  #description: LibvirtDescription | undefined;
  #events: DomainEvents | undefined;
  #rendezvous: Rendezvous | undefined;
  #connected: Promise<void> | undefined;
  #qemuEnded: Promise<MigrationEnding> | undefined;
  #resumed: Promise<Millis> | undefined;
  /** libvirt was let finish after pre-copy: it takes the guest for moved, or is about to, and has it paused. */
  #finishes = false;
  /** Post-copy: the guest's state is loaded, and could run. */
  #loaded = false;
  #postcopyIsFinal = false;
  #definedBefore = false;
  /** The source has been told that the guest may run here. */
  #running = false;
  /** Nothing is taken in any more. */
  #over = false;
  #rejoining = false;
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
    this.#policy = policy;
    this.#imagesOf = imagesOf;
    this.#connection = connection;
    this.#name = name;
    this.#options = options;
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
    });
    connection.once('close', (reason) => {
      if (reason !== 'client') this.#resolveGone(daemonGone(reason));
    });
  }

  get postcopyIsFinal(): boolean {
    return this.#postcopyIsFinal;
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#stream.events;
  }

  async prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult> {
    return await asking(async () => {
      const { libvirt } = description;
      if (description.kind !== 'libvirt' || libvirt === undefined) {
        return { ok: false, reasons: [otherKind(description.kind)] };
      }
      this.#description = libvirt;
      this.#postcopyIsFinal = isFinal(description.hypervisorVersion);
      const [before, preflight] = await Promise.all([
        ifThere(() => this.#connection.domainByUuid(libvirt.uuid)),
        this.#look(description.preflight, plan),
      ]);
      this.#definedBefore = before !== undefined;
      this.#preflight = preflight;
      const warnings = notes(preflight.findings);
      const reasons = [...this.#sameDirectory(libvirt), ...refusals(preflight.findings)];
      if (reasons.length > 0) return { ok: false, reasons, notes: warnings };
      const version = await this.#connection.host.hypervisorVersion();
      return { ok: true, hypervisorVersion: versionText(version), nics: [], notes: warnings };
    });
  }

  #sameDirectory({ socketDir }: LibvirtDescription): GuestError[] {
    if (socketDir === this.#options.socketDir) return [];
    return [
      new GuestError(
        'E_CONFIG',
        `the agents keep libvirt's sockets in different directories: ${socketDir} on the source, ${this.#options.socketDir} on the destination`,
        'give both agents the same libvirt.socketDir',
      ),
    ];
  }

  async #look(told: unknown, { postcopy }: DestPlan): Promise<DestPreflight> {
    const facts = parseDomainFacts(told);
    // It is to have the name that this guest was opened by.
    const shape = { ...facts.shape, name: this.#name };
    return await destPreflight(this.#connection, { ...facts, shape }, { postcopy, policy: this.#policy });
  }

  open(_: DestPlan, session: string): Promise<void> {
    const opened = this.#open(session);
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(session: string): Promise<void> {
    await asking(async () => {
      const { uuid, rendezvous } = this.#description!;
      const events = await DomainEvents.subscribe(this.#connection, uuid);
      this.#events = events;
      this.#qemuEnded = events.next(migrationEnding);
      this.#resumed = events.next(resumedAt);
      events.on((happening) => this.#watch(happening));
      this.#rendezvous = await Rendezvous.make(this.#options, rendezvous);
      // One that is finished later has its disks.
      if (this.#preflight && !this.#rejoining) {
        const { store, images } = this.#preflight;
        this.#images = await store.create(images, this.#imagesOf?.(session));
      }
    });
  }

  #watch(happening: DomainHappening): void {
    if (happening.type !== 'lifecycle' || happening.change.event !== 'stopped') return;
    this.#resolveGone(gone(`the domain ended on the destination (${happening.change.detail})`));
  }

  async connectSide(kind: SideKind): Promise<Duplex> {
    if (!this.#rendezvous) throw new Error('the destination guest was not opened');
    if (kind !== 'rpc') return this.#keep(await connectLocal(this.#rendezvous.here(kind)));
    const daemon = this.#keep(await this.#connectDaemon());
    // Nobody would hang up on it any more, and libvirt would keep what comes in by it for ever.
    if (this.#over) {
      daemon.destroy();
      throw notTakenIn(this.#name);
    }
    // One that comes anew stands for the one before.
    this.#rpc?.hangUp();
    this.#rpc = new CalledRpc(daemon, (parameters) => this.#mayPrepare(parameters));
    if (this.#rejoining) this.#rpc.release({ paused: false });
    return this.#rpc.stream;
  }

  /** libvirt makes what the source's tells it to: that has to be the domain that was let in, where it was to be. */
  #mayPrepare(parameters: ReadonlyMap<string, string>): void {
    const xml = parameters.get('destination_xml') ?? '';
    const { name, uuid } = identityOf(xml);
    const expected = this.#rendezvous!;
    const whole =
      (parameters.get('destination_name') ?? name) === this.#name &&
      uuid === this.#description?.uuid &&
      parameters.get('migrate_uri') === `unix://${expected.there('ram')}` &&
      (parameters.get('disks_uri') ?? `unix://${expected.there('nbd')}`) ===
        `unix://${expected.there('nbd')}`;
    if (whole) return;
    const error = new GuestError(
      'E_REFUSED',
      `the source's libvirt brings the domain ${name} (${uuid}), which is not what was let in`,
      'see who has access to the source agent',
    );
    this.#resolveGone(error);
    throw error;
  }

  async #connectDaemon(): Promise<Socket> {
    let why: unknown;
    for (const path of daemonSockets(this.#options.uri)) {
      try {
        return await connectLocal(path);
      } catch (error) {
        why = error;
      }
    }
    throw why;
  }

  #keep(socket: Socket): Socket {
    this.#local.add(socket);
    socket.once('close', () => this.#local.delete(socket));
    return socket;
  }

  async apply(item: DestItem): Promise<void> {
    // libvirt had QEMU listen before the source's QEMU could write anything.
    this.#connected ??= this.#connectRam();
    if (!this.#stream.begun) await this.#connected;
    await this.#stream.apply(item);
  }

  async #connectRam(): Promise<void> {
    this.#stream.begin(connectToQemu(this.#rendezvous!.here('ram')));
  }

  async ready(): Promise<void> {
    if (this.#stream.postcopy) {
      await Promise.race([this.#stream.stateLoaded, this.#untilGone()]);
      this.#loaded = true;
      return;
    }
    await this.#untilCompleted();
    this.#finishes = true;
    await this.#finish({ paused: true });
  }

  /** libvirt takes the guest for moved. */
  async #finish(how: { readonly paused: boolean }): Promise<void> {
    const rpc = this.#rpc;
    if (!rpc) throw notFinished("the source's libvirt is not connected");
    rpc.release(how);
    if (await rpc.finished) return;
    throw rpc.asked ? notFinished('libvirt refused to finish the migration') : neverAsked(this.#name);
  }

  async #untilGone(): Promise<never> {
    throw await this.gone;
  }

  async #untilCompleted(): Promise<void> {
    const ending = await Promise.race([this.#qemuEnded, this.#untilGone()]);
    if (ending === 'completed') return;
    throw new GuestError(
      'E_GUEST_FAILED',
      "the destination's QEMU could not load the guest",
      "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
    );
  }

  async complete(): Promise<void> {
    await this.#untilCompleted();
  }

  async run({ paused }: { paused: boolean }): Promise<{ readonly atMs: Millis }> {
    return await asking(async () => {
      this.#running = true;
      await this.#images?.keep();
      if (this.#finishes) {
        if (paused) return { atMs: millis(Date.now()) };
        return { atMs: await this.#resume() };
      }
      const finished = this.#finish({ paused: false });
      finished.catch(() => {});
      // One that was paused is left paused: the good answer is all there is to see. After post-copy it comes last.
      if (paused) return { atMs: await finished.then(() => millis(Date.now())) };
      const failed = finished.then(() => this.#resumed!);
      return { atMs: await Promise.race([this.#resumed!, failed, this.#untilGone()]) };
    });
  }

  /** The stamp is QEMU's. Of a libvirtd that was restarted no event comes. */
  async #resume(): Promise<Millis> {
    const now = (): Millis => millis(Date.now());
    if (!this.#connection.closed) {
      const lost = new Promise<void>((resolve) => this.#connection.once('close', () => resolve()));
      try {
        await answerOf('let the domain run', (await this.#domain()).resume());
        return await Promise.race([this.#resumed!, lost.then(now)]);
      } catch (error) {
        if (!(await isLost(this.#connection))) throw error;
      }
    }
    await this.#reach();
    const domain = await this.#domain();
    // The one that was lost may have done it, and not have said so.
    const { state } = await answerOf("told the domain's state", domain.state());
    if (state !== 'running') await answerOf('let the domain run', domain.resume());
    return now();
  }

  async suspend(): Promise<void> {
    this.#stream.close();
    // Where nobody is left to hear libvirt's answer, its connection must not end in the middle of the next attempt.
    if (this.#rpc) await Promise.race([this.#rpc.finished, this.#rpc.detached, sleep(SUSPEND_MS)]);
    this.#running = false;
    await this.close();
  }

  async rejoin(description: GuestDescription): Promise<PrepareResult> {
    return await asking(async () => {
      const { libvirt } = description;
      if (libvirt === undefined) return { ok: false, reasons: [otherKind(description.kind)] };
      this.#description = libvirt;
      this.#rejoining = true;
      const reasons = this.#sameDirectory(libvirt);
      const { state, reason } = (await ifThere(this.#state)) ?? { state: 'absent', reason: 'unknown' };
      if (reason !== 'post-copy-failed') reasons.push(notHalted(this.#name, `${state} (${reason})`));
      if (reasons.length > 0) return { ok: false, reasons };
      this.#running = true;
      return {
        ok: true,
        hypervisorVersion: versionText(await this.#connection.host.hypervisorVersion()),
        nics: [],
      };
    });
  }

  /** Taps are made with the domain. */
  async places(): Promise<readonly Nic[]> {
    return await asking(async () => readInterfaces(await (await this.#domain()).xml()));
  }

  #domain(): Promise<Domain> {
    return this.#connection.domainByUuid(this.#description!.uuid);
  }

  readonly #state = async (): Promise<DomainState> => await (await this.#domain()).state();

  /** Only the guest itself knows what its memory should hold. */
  examine(): Promise<Examination> {
    return Promise.resolve({ found: 'nothing' });
  }

  /** QEMU does, by itself, when libvirt has it run the guest. */
  announceSelf(): Promise<void> {
    return Promise.resolve();
  }

  async discard(): Promise<void> {
    if (this.#running) throw kept(this.#name, 'the source has been told that it may run here');
    if (this.#stream.postcopy && this.#loaded)
      throw kept(this.#name, 'it is in post-copy, which the source cannot take back');
    this.#over = true;
    await asking(async () => {
      // What is half begun cannot be ended: there would be images after its end.
      await answerOf("got the domain's disks and events ready", this.#opening, OPENED_MS);
      this.#stream.answerWithZeros();
      // libvirt may be in the middle of it: only then is there something to undo, or nothing.
      if (this.#finishes && this.#rpc?.asked) await Promise.race([this.#rpc.finished, sleep(UNDO_MS)]);
      this.#rpc?.hangUp();
      this.#stream.close();
      await doneAnewIfLost(
        () => this.#connection,
        () => this.#end(),
      );
      await this.#images?.remove();
    });
  }

  async #end(): Promise<void> {
    if (this.#connection.closed) await this.#reach();
    await this.#untilEnded();
  }

  /** A libvirtd that was restarted ends what was coming in. */
  async #reach(): Promise<void> {
    const connection = await reconnect(this.#options.uri);
    void this.#connection.close().catch(() => {});
    this.#connection = connection;
  }

  /** libvirt has taken it for moved, and it never ran. Where it has not, it ends it by itself. */
  async #undo(): Promise<void> {
    await ifThere(async () => {
      const domain = await this.#domain();
      const undefine = !this.#definedBefore && (await domain.isPersistent());
      const { state, reason } = await domain.state();
      // While it still comes in it is libvirt's.
      if (state === 'paused' && reason !== 'migration') await domain.destroy();
      // An NVRAM that came along is the guest's, which is at home on the source.
      if (undefine) await domain.undefine(['keep-nvram']);
    });
  }

  /** libvirt ends what was coming in when it is hung up on; what it finishes meanwhile is undone. */
  async #untilEnded(): Promise<void> {
    if (!this.#description || !this.#events) return;
    const deadline = performance.now() + DISCARD_MS;
    for (;;) {
      if (this.#finishes) await answerOf('ended the domain', this.#undo());
      const { state } = (await answerOf("told the domain's state", ifThere(this.#state))) ?? {
        state: 'absent',
      };
      if (state === 'absent' || state === 'shut-off') return;
      if (performance.now() > deadline) {
        throw kept(this.#name, 'libvirt has not ended it');
      }
      await sleep(POLL_MS);
    }
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  async close(): Promise<void> {
    if (this.#running && this.#rpc) {
      // The source's libvirt waits for the answer, and hangs up itself.
      const { ended, detached } = this.#rpc;
      await Promise.race([ended, detached, sleep(FINISH_MS, undefined, { ref: false })]);
    }
    this.#over = true;
    this.#rpc?.hangUp();
    for (const socket of this.#local) socket.destroy();
    this.#stream.close();
    await this.#rendezvous?.remove();
    if (this.#events) await letGo(this.#events.close().catch(() => {}));
    await letGo(this.#connection.close());
    // Of a guest of which it is not known that it is gone the disks stay.
    await this.#images?.leave();
  }
}

function resumedAt(happening: DomainHappening): Millis | undefined {
  if (happening.type !== 'monitor' || happening.event !== 'RESUME') return undefined;
  return millis(happening.atMs);
}

function connectLocal(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path }, () => {
      socket.off('error', reject);
      resolve(socket);
    });
    socket.pause();
    socket.once('error', reject);
  }).catch((cause: unknown) => {
    throw new GuestError(
      'E_GUEST_FAILED',
      `nobody takes connections at ${path} on the destination: ${messageOf(cause)}`,
      'check that libvirtd runs there, and the directory of sockets in the agent’s configuration',
      { cause },
    );
  }) as Promise<Socket>;
}

/** 7002022 is 7.2.22. */
function versionText(version: number | bigint): string {
  const n = Number(version);
  return `QEMU ${Math.floor(n / 1_000_000)}.${Math.floor(n / 1000) % 1000}.${n % 1000}`;
}

/** libvirt never runs a guest again that was in post-copy; QEMU itself does from 10.2 on, until it hears that it is loaded. */
function isFinal(sourceVersion: string): boolean {
  const [, major, minor] = /^QEMU (\d+)\.(\d+)/.exec(sourceVersion) ?? [];
  if (major === undefined) return false;
  return Number(major) < 10 || (Number(major) === 10 && Number(minor) < 2);
}

function otherLibvirt(uri: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `the destination agent does not connect to ${uri} for others`,
    'name the domain alone with --dest-guest libvirt:NAME; --libvirt gives that agent its libvirt',
  );
}

function otherKind(kind: string): GuestError {
  return new GuestError(
    'E_GUEST_MISMATCH',
    `a guest of the kind ${kind} cannot enter libvirt`,
    'name a destination guest of the same kind with --dest-guest',
  );
}

function notHalted(name: string, state: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `no unfinished post-copy of ${name} waits on the destination: it is ${state}`,
    'see its state on both hosts with "virsh domstate --reason"',
  );
}

function gone(what: string): GuestError {
  return new GuestError('E_GUEST_GONE', what, "look into libvirt's and QEMU's logs on the destination host");
}

/** Its QEMUs go on without it: that is no guest's end. */
function daemonGone(reason: string): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `the destination's libvirtd is gone (${reason})`,
    "see that it runs again, and its log; then see the domain's state on both hosts",
  );
}

function notFinished(why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain could not be run on the destination: ${why}`,
    "see libvirt's log on the destination, and the domain's state on both hosts",
  );
}

function notTakenIn(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `libvirt's connection for the domain ${name} came when its migration was over`,
    'none: the source has the guest',
  );
}

function neverAsked(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain ${name} cannot be run: the link broke in post-copy, before the source's libvirt asked to finish the migration`,
    'its memory cannot be brought together any more: destroy the domain on both hosts, then start it from its disks',
  );
}

function kept(name: string, why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain ${name} is kept on the destination: ${why}`,
    'see its state on both hosts with "virsh domstate --reason"; "vmferry resume" finishes a paused post-copy',
  );
}
