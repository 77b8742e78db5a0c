/**
 * The domain is taken in, until all of it is here.
 *
 *     idle ── open ──▶ loading ── pre-copy: QEMU has loaded all ──▶ finished by libvirt, left paused ──▶ ready
 *                         └────── post-copy: QEMU has its state ──▶ ready ── no page is missing ──▶ complete
 */
import type { GuestError } from '@vmferry/engine/errors';
import type { DestItem } from '@vmferry/engine/guest';
import { type Millis, millis } from '@vmferry/engine/units';
import { IncomingStream } from '../../qemu/incoming-stream.ts';
import { connectToQemu } from '../../qemu/migration-socket.ts';
import { letGo } from '../answer.ts';
import {
  DomainEvents,
  type DomainHappening,
  type MigrationEnding,
  migrationEnding,
} from '../domain-events.ts';
import type { ImageRecord } from '../images/record.ts';
import type { CreatedImages } from '../images/store.ts';
import type { DestConnections } from './connections.ts';
import type { DestDomain } from './domain.ts';
import { notLoaded } from './faults.ts';
import type { DestLook } from './look.ts';

export class Intake {
  readonly stream = new IncomingStream();
  readonly #domain: DestDomain;
  readonly #look: DestLook;
  readonly #connections: DestConnections;
  readonly #gone: Promise<GuestError>;
  #opening: Promise<unknown> = Promise.resolve();
  #events: DomainEvents | undefined;
  #qemuEnded: Promise<MigrationEnding> | undefined;
  #resumed: Promise<Millis> | undefined;
  #images: CreatedImages | undefined;
  #connected: Promise<void> | undefined;
  #finishes = false;
  #loaded = false;
  #stopped = false;

  constructor({
    domain,
    look,
    connections,
    gone,
  }: {
    readonly domain: DestDomain;
    readonly look: DestLook;
    readonly connections: DestConnections;
    readonly gone: Promise<GuestError>;
  }) {
    this.#domain = domain;
    this.#look = look;
    this.#connections = connections;
    this.#gone = gone;
  }

  /** Settled when `open` has come to its end, whichever way. */
  get opening(): Promise<unknown> {
    return this.#opening;
  }

  /** libvirt was told to make room, or may have been. */
  get opened(): boolean {
    return this.#events !== undefined;
  }

  /** QEMU's stamp of the guest's running here. */
  get resumed(): Promise<Millis> | undefined {
    return this.#resumed;
  }

  get images(): CreatedImages | undefined {
    return this.#images;
  }

  /** libvirt was let finish after pre-copy: it takes the guest for moved, or is about to, and has it paused. */
  get finishes(): boolean {
    return this.#finishes;
  }

  /** It has ended here: a domain of that name and UUID that is met later has come by another migration. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Post-copy: the guest's state is loaded, and could run. */
  get loaded(): boolean {
    return this.#loaded;
  }

  /** @param watch what happens to the domain from here on; `record`: where the images that are created are noted */
  open(watch: (happening: DomainHappening) => void, record: () => ImageRecord | undefined): Promise<void> {
    const opened = this.#open(watch, record);
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(
    watch: (happening: DomainHappening) => void,
    record: () => ImageRecord | undefined,
  ): Promise<void> {
    const { preflight, rendezvous, rejoining } = this.#look;
    const events = await DomainEvents.subscribe(this.#domain.connection, this.#domain.uuid!);
    this.#events = events;
    this.#qemuEnded = events.next(migrationEnding);
    this.#resumed = events.next(resumedAt);
    events.on((happening) => {
      if (happening.type === 'lifecycle' && happening.change.event === 'stopped') this.#stopped = true;
      watch(happening);
    });
    await this.#connections.open(rendezvous!, { finishesAtOnce: rejoining });
    // One that is finished later has its disks.
    if (preflight && !rejoining) this.#images = await preflight.store.create(preflight.images, record());
  }

  async apply(item: DestItem): Promise<void> {
    // libvirt had QEMU listen before the source's QEMU could write anything.
    this.#connected ??= this.#connectMemory();
    if (!this.stream.begun) await this.#connected;
    await this.stream.apply(item);
  }

  async #connectMemory(): Promise<void> {
    this.stream.begin(connectToQemu(this.#connections.memoryPath));
  }

  async ready(): Promise<void> {
    if (this.stream.postcopy) {
      await Promise.race([this.stream.stateLoaded, this.untilGone()]);
      this.#loaded = true;
      return;
    }
    await this.complete();
    this.#finishes = true;
    await this.#connections.finish({ paused: true });
  }

  async complete(): Promise<void> {
    const ending = await Promise.race([this.#qemuEnded, this.untilGone()]);
    if (ending !== 'completed') throw notLoaded();
  }

  async untilGone(): Promise<never> {
    throw await this.#gone;
  }

  async close(): Promise<void> {
    if (this.#events) await letGo(this.#events.close().catch(() => {}));
  }
}

function resumedAt(happening: DomainHappening): Millis | undefined {
  if (happening.type !== 'monitor' || happening.event !== 'RESUME') return undefined;
  return millis(happening.atMs);
}
