/** Two libvirtds, an agent of each kind at each of them, and Linux guests that move between. */
import { randomUUID } from 'node:crypto';
import type { DestAgentParts } from '@vmferry/dest-agent/agent';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import type { SourceAgentParts } from '@vmferry/source-agent/agent';
import { afterAll, beforeAll } from 'vitest';
import { type Agents, startAgents } from '../migrate/agents.ts';
import { type Later, useLater } from '../migrate/traces.ts';
import type { SerialGuest } from './guest.ts';
import { type LibvirtHost, startLibvirtHosts } from './libvirt.ts';
import {
  type DomainOptions,
  DomainPlace,
  DomainWatcher,
  linuxDomain,
  removeDomain,
  stateOn,
} from './libvirt-guest.ts';
import { within } from './process.ts';
import { type TwoHosts, twoHosts } from './two-hosts.ts';
import type { HostName } from './versions.ts';

type OfHosts<T> = Record<HostName, T>;

/** A domain that was started on host a. */
export class MovingDomain {
  readonly name: string;
  readonly uuid: string;
  readonly watcher: DomainWatcher;
  /** Where it has been, in order. */
  readonly places: SerialGuest[];
  readonly #libvirts: TwoLibvirts;

  constructor(
    libvirts: TwoLibvirts,
    { name, uuid }: { readonly name: string; readonly uuid: string },
    watcher: DomainWatcher,
    first: SerialGuest,
  ) {
    this.#libvirts = libvirts;
    this.name = name;
    this.uuid = uuid;
    this.watcher = watcher;
    this.places = [first];
  }

  get uri(): string {
    return `libvirt:${this.name}`;
  }

  /** "a: running (unpaused), b: gone" */
  async states(): Promise<string> {
    const { to } = this.#libvirts;
    return `a: ${await stateOn(to.a, this.uuid)}, b: ${await stateOn(to.b, this.uuid)}`;
  }

  on(host: HostName): Promise<Domain> {
    return this.#libvirts.to[host].domainByUuid(this.uuid);
  }

  /** A serial port there, which becomes one of its places when it has come. */
  async awaitOn(host: HostName): Promise<Arrival> {
    const place = await this.#libvirts.placeOn(host, this.name);
    const arrived = async (): Promise<SerialGuest> => {
      const guest = await within(60_000, () => `${this.name} on ${host}`, place.guest);
      this.places.push(guest);
      return guest;
    };
    return {
      arrived,
      runs: async () => {
        await (await arrived()).nextTick();
      },
    };
  }
}

/** A domain that is to come. One of the two is awaited, once. */
export interface Arrival {
  arrived(): Promise<SerialGuest>;
  /**
   * It ticks there. By then it has what QEMU itself needs of it, so that a post-copy can be cut off: see docs/libvirt.md
   * on a QEMU that hears nobody any more.
   */
  runs(): Promise<void>;
}

export class TwoLibvirts {
  readonly rig: TwoHosts;
  readonly hosts: OfHosts<LibvirtHost>;
  readonly to: OfHosts<LibvirtConnection>;
  readonly #later: Later;
  readonly #places = new Map<string, DomainPlace>();

  static async start(later: Later): Promise<TwoLibvirts> {
    const rig = await twoHosts();
    const hosts = await startLibvirtHosts(rig);
    const to = { a: await hosts.a.connect(), b: await hosts.b.connect() };
    return new TwoLibvirts(rig, hosts, to, later);
  }

  private constructor(
    rig: TwoHosts,
    hosts: OfHosts<LibvirtHost>,
    to: OfHosts<LibvirtConnection>,
    later: Later,
  ) {
    this.rig = rig;
    this.hosts = hosts;
    this.to = to;
    this.#later = later;
  }

  /** In this process, from one host to the other. They end with the test. */
  async agents(
    from: HostName = 'a',
    sourceParts: SourceAgentParts = {},
    destParts: DestAgentParts = {},
  ): Promise<Agents> {
    const into = from === 'a' ? 'b' : 'a';
    const agents = await startAgents(
      { libvirt: this.hosts[into].agentSettings },
      { source: { libvirt: this.hosts[from].agentSettings }, sourceParts, destParts },
    );
    return this.#later(agents, (each) => each.close());
  }

  /** One that nobody came to is still there. */
  async placeOn(host: HostName, name: string): Promise<DomainPlace> {
    const key = `${host} ${name}`;
    const waiting = this.#places.get(key);
    if (waiting?.waits) return waiting;
    const place = this.#later(await DomainPlace.await(this.hosts[host], name), (each) => each.stop());
    this.#places.set(key, place);
    return place;
  }

  /** Boots a domain on host a and waits until it is ready. It ends with the test. */
  async boot(
    options: Omit<DomainOptions, 'name' | 'uuid'> & { readonly persistent?: boolean } = {},
  ): Promise<MovingDomain> {
    const uuid = randomUUID();
    const named = { name: `guest-${uuid.slice(0, 8)}`, uuid };
    const place = await this.placeOn('a', named.name);
    this.removeLater(uuid);
    const xml = await linuxDomain({ ...options, ...named });
    if (options.persistent) await (await this.to.a.define(xml)).create();
    else await this.to.a.createTransient(xml);
    const first = await within(60_000, () => `${named.name}'s serial port`, place.guest);
    await first.ready();
    const watcher = this.#later(await DomainWatcher.watch(uuid, this.to, 'a'), (each) => each.stop());
    return new MovingDomain(this, named, watcher, first);
  }

  /** Whatever there is of this domain on either host ends with the test. */
  removeLater(uuid: string): void {
    for (const host of ['a', 'b'] as const) {
      this.#later(host, (on) => removeDomain(this.hosts[on], this.to[on], uuid));
    }
  }

  /** libvirtd crashes and is started again; its domains go on. Agents are to be made anew. */
  async restart(host: HostName): Promise<void> {
    this.#later(this.to[host], (lost) => lost.close());
    await this.hosts[host].killDaemon();
    await this.hosts[host].startDaemon();
    this.to[host] = await this.hosts[host].connect();
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.to).map((each) => each.close()));
    await this.rig.close();
  }
}

/** For all tests of a file. */
export function useTwoLibvirts(): { readonly libvirts: TwoLibvirts; readonly later: Later } {
  const later = useLater();
  let libvirts: TwoLibvirts | undefined;
  beforeAll(async () => {
    libvirts = await TwoLibvirts.start(later);
  });
  afterAll(() => libvirts?.close());
  return {
    later,
    get libvirts() {
      if (!libvirts) throw new Error('the libvirtds were not started');
      return libvirts;
    },
  };
}
