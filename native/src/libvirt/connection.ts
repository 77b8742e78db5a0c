import { EventEmitter } from 'node:events';
import { boundsError } from '../errors.ts';
import { type CallOptions, call, callUntil, requireText, requireWhole } from './call.ts';
import { type AuthOptions, answerer, credentialNumbers } from './credentials.ts';
import { Domain } from './domain.ts';
import {
  type DomainEvent,
  type DomainEvents,
  type DomainName,
  decodeEvent,
  decodeMonitorEvent,
  domainName,
  eventNumbers,
  type MonitorEvent,
  type NativeEvents,
  type NativeMonitorEvent,
} from './events.ts';
import * as flags from './flags.ts';
import { bits, type FlagsOf } from './flags.ts';
import { LibvirtHost } from './host.ts';
import { libvirt } from './library.ts';
import { type Keepalive, Lifeline } from './lifeline.ts';
import type { Parameters } from './parameters.ts';
import { SharedEvents } from './shared-events.ts';
import type { ConnectionHandle, NativeRecord, Opened } from './table.ts';

export interface ConnectOptions extends CallOptions {
  readonly readOnly?: boolean;
  /** For URIs that ask for a name or a password. Without it such a connection is refused. */
  readonly auth?: AuthOptions;
  /**
   * How soon a peer that does not answer is given up: asked every `intervalSeconds`, lost after `count` questions
   * without an answer. Default 5 and 5. False: never, and calls on it may wait for ever.
   */
  readonly keepAlive?: { readonly intervalSeconds: number; readonly count: number } | false;
}

/**
 * `error`: an I/O error; `eof`: the daemon is gone; `keepalive`: it does not answer; `client`: `close` was called here;
 * `unrecognised`: newer than this table.
 */
export type CloseReason = 'error' | 'eof' | 'keepalive' | 'client' | 'unrecognised';

export interface DomainStatistics {
  readonly domain: DomainName;
  /** By libvirt's names: `state.state`, `cpu.time` (ns), `balloon.current` (KiB), `block.0.capacity` (bytes). */
  readonly statistics: Parameters;
}

export interface DirtyRate {
  readonly status: 'unstarted' | 'measuring' | 'measured';
  /** Only when measured. */
  readonly mibPerSecond?: number;
  readonly periodSeconds?: number;
}

/** Of events; see `subscribe`. */
export interface Subscription {
  /** No event comes once this was called; resolves when libvirt has forgotten it, too. Any number of times. */
  close(): Promise<void>;
}

const closeReasons: readonly CloseReason[] = ['error', 'eof', 'keepalive', 'client'];
const dirtyRateStatuses = ['unstarted', 'measuring', 'measured'] as const;
const READ_ONLY = 1;
const MAX_SECONDS = 2 ** 31 - 1;

/**
 * What the addon calls when a connection is lost. The addon holds it, and so it must not hold the connection, or that
 * would never be collected.
 */
class Loss {
  #connection: WeakRef<LibvirtConnection> | undefined;
  #early: number | undefined;

  readonly listener = (reason: number): void => {
    if (this.#connection === undefined) this.#early = reason;
    else this.#connection.deref()?.lost(reason);
  };

  /** A loss from before is told once whoever opened it had its turn. */
  belongsTo(connection: LibvirtConnection): void {
    this.#connection = new WeakRef(connection);
    const early = this.#early;
    if (early !== undefined) setImmediate(() => connection.lost(early));
  }
}

/**
 * A connection to a libvirtd, or to a driver inside this process (`test:///default`).
 *
 * Emits `close` with a `CloseReason`, once: when the connection is lost or `close` was called. Calls on one that was
 * lost fail with `LibvirtError`, on one that was closed with `E_NATIVE_CLOSED`.
 *
 * Calls under way and subscriptions keep the process running, an open connection alone does not. One that nobody
 * refers to any more, that has no subscription and none of whose domains is in use, is closed when it is collected.
 */
export class LibvirtConnection extends EventEmitter<{ close: [reason: CloseReason] }> {
  /** Whether the peer answers keepalive messages; not for a driver inside this process. */
  readonly keepsAlive: boolean;
  /** What is behind it. */
  readonly host: LibvirtHost;
  /** @internal */
  readonly handle: ConnectionHandle;
  readonly #events = new SharedEvents((number) => this.#unsubscribe(number));
  #lost = false;
  #closing: Promise<number> | undefined;

  /** `qemu:///system`, `test:///default`; undefined for libvirt's default. */
  static async open(uri: string | undefined, options: ConnectOptions = {}): Promise<LibvirtConnection> {
    if (uri !== undefined) requireText(uri, 'uri');
    const keepAlive = options.keepAlive ?? { intervalSeconds: 5, count: 5 };
    const interval =
      keepAlive === false ? 0 : requireWhole(keepAlive.intervalSeconds, 1, MAX_SECONDS, 'intervalSeconds');
    const count = keepAlive === false ? 0 : requireWhole(keepAlive.count, 1, MAX_SECONDS, 'count');
    const types = credentialNumbers(options.auth);
    const table = libvirt();
    const loss = new Loss();
    const unanswered: unknown[] = [];
    const answer =
      options.auth === undefined ? undefined : answerer(options.auth, (error) => unanswered.push(error));
    const flagNumber = options.readOnly === true ? READ_ONLY : 0;
    const { signal } = options;
    let native: Opened;
    try {
      native = await callUntil(
        signal,
        table.open,
        uri,
        flagNumber,
        types,
        answer,
        interval,
        // Never to be over: see `lifeline.ts`.
        count === 0 ? 0 : MAX_SECONDS,
        loss.listener,
      );
    } catch (error) {
      throw unanswered[0] ?? error;
    }
    const connection = new LibvirtConnection(native.connection, native.keepsAlive);
    loss.belongsTo(connection);
    if (keepAlive !== false && native.keepsAlive) connection.#watch(keepAlive);
    return connection;
  }

  private constructor(handle: ConnectionHandle, keepsAlive: boolean) {
    super();
    this.handle = handle;
    this.keepsAlive = keepsAlive;
    this.host = new LibvirtHost(handle);
  }

  /** Lost, or closed here. */
  get closed(): boolean {
    return this.#lost || this.#closing !== undefined;
  }

  /**
   * Frees its domains, ends its subscriptions and closes it. Resolves with the number of references that are left: 0,
   * or those of calls still under way, with the last of which it is gone. Any number of times.
   */
  close(): Promise<number> {
    this.#events.forget();
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<number> {
    const lifeline = Lifeline.of(this.handle);
    // libvirt would say good-bye to who does not answer. What was left behind is given back when it is collected.
    if (lifeline?.isCut) return 1;
    const closing = call(libvirt().close, this.handle);
    try {
      return await (lifeline?.last(closing) ?? closing);
    } catch (error) {
      if (lifeline?.isCut) return 1;
      throw error;
    } finally {
      if (!this.#lost) this.emit('close', 'client');
    }
  }

  /** Whoever nobody refers to any more is not to be held by it. */
  #watch(keepalive: Keepalive): void {
    const self = new WeakRef(this);
    Lifeline.watch(
      this.handle,
      keepalive,
      () => {
        const connection = self.deref();
        return connection === undefined || connection.closed ? undefined : connection.host.daemonVersion();
      },
      () => {
        const connection = self.deref();
        if (connection) connection.#onLost('keepalive');
      },
    );
  }

  /** Whether the connection still is; asks nobody. */
  async isAlive(): Promise<boolean> {
    return call(libvirt().isAlive, this.handle);
  }

  /** Domains, active or not, unless flags narrow it. */
  async domains(names: FlagsOf<typeof flags.listFlags> = []): Promise<Domain[]> {
    const natives = await call(libvirt().list, this.handle, bits(flags.listFlags, names));
    return natives.map((native) => new Domain(native, this));
  }

  /** `VIR_ERR_NO_DOMAIN` where there is none. The same for the next two. */
  async domainByName(name: string): Promise<Domain> {
    return new Domain(await call(libvirt().lookupByName, this.handle, requireText(name, 'name')), this);
  }

  async domainByUuid(uuid: string): Promise<Domain> {
    return new Domain(await call(libvirt().lookupByUuid, this.handle, requireText(uuid, 'uuid')), this);
  }

  /** Of one that runs. */
  async domainById(id: number): Promise<Domain> {
    return new Domain(
      await call(libvirt().lookupById, this.handle, requireWhole(id, 0, MAX_SECONDS, 'id')),
      this,
    );
  }

  /** Defines a domain, or changes the definition of the one with this UUID, by its XML. */
  async define(xml: string, names: FlagsOf<typeof flags.defineFlags> = []): Promise<Domain> {
    const number = bits(flags.defineFlags, names);
    return new Domain(await call(libvirt().define, this.handle, requireText(xml, 'xml'), number), this);
  }

  /** Starts a domain that has no definition and is gone when it stops. */
  async createTransient(
    xml: string,
    names: FlagsOf<typeof flags.createFlags> = [],
    { signal }: CallOptions = {},
  ): Promise<Domain> {
    requireText(xml, 'xml');
    const number = bits(flags.createFlags, names);
    return new Domain(await callUntil(signal, libvirt().createTransient, this.handle, xml, number), this);
  }

  /** Statistics of all domains, or of those that flags choose; of all groups, unless some are named. */
  async allStatistics(
    groups: FlagsOf<typeof flags.statisticsGroups> = [],
    names: FlagsOf<typeof flags.statisticsFlags> = [],
  ): Promise<DomainStatistics[]> {
    const numbers = [bits(flags.statisticsGroups, groups), bits(flags.statisticsFlags, names)] as const;
    return records(await call(libvirt().allStatistics, this.handle, ...numbers));
  }

  /** Of these domains, which must be of this connection. At least one. */
  async statistics(
    domains: readonly Domain[],
    groups: FlagsOf<typeof flags.statisticsGroups> = [],
    names: FlagsOf<typeof flags.statisticsFlags> = [],
  ): Promise<DomainStatistics[]> {
    if (domains.length === 0) throw boundsError('statistics of no domain');
    const handles = domains.map((domain) => domain.handle);
    const numbers = [bits(flags.statisticsGroups, groups), bits(flags.statisticsFlags, names)] as const;
    return records(await call(libvirt().statistics, this.handle, handles, ...numbers));
  }

  /** What `Domain.startDirtyRateCalculation` has found. */
  async dirtyRate(domain: Domain): Promise<DirtyRate> {
    const [record] = await this.statistics([domain], ['dirty-rate'], ['enforce']);
    const fields = record?.statistics ?? {};
    const status = dirtyRateStatuses[Number(fields['dirtyrate.calc_status'] ?? 0)] ?? 'unstarted';
    if (status !== 'measured') return { status };
    return {
      status,
      mibPerSecond: Number(fields['dirtyrate.megabytes_per_second']),
      periodSeconds: Number(fields['dirtyrate.calc_period']),
    };
  }

  /**
   * Calls `listener` for events of one domain, or of all. None is missed that comes after this has resolved; none comes
   * after the subscription or the connection was closed. Any number of listeners.
   */
  async subscribe<E extends DomainEvent>(
    event: E,
    listener: (event: DomainEvents[E]) => void,
    domain?: Domain,
  ): Promise<Subscription> {
    if (!Object.hasOwn(eventNumbers, event)) throw boundsError(`there is no event '${String(event)}'`);
    const { subscribe } = libvirt();
    const register = (tell: (of: DomainEvents[E]) => void) => {
      const onEvent = (native: NativeEvents[E]) => this.#tell(tell, decodeEvent(event, native));
      return call(subscribe, this.handle, eventNumbers[event], domain?.handle, onEvent);
    };
    return this.#subscription(`${event} ${domain?.uuid ?? ''}`, register, listener);
  }

  /** The same for QEMU's own events: of one name, of those that match a pattern, or all (undefined). */
  async subscribeMonitor(
    event: string | undefined,
    listener: (event: MonitorEvent) => void,
    options: { readonly domain?: Domain; readonly flags?: FlagsOf<typeof flags.monitorEventFlags> } = {},
  ): Promise<Subscription> {
    if (event !== undefined) requireText(event, 'event');
    const number = bits(flags.monitorEventFlags, options.flags);
    const { subscribeMonitor } = libvirt();
    const { domain } = options;
    const register = (tell: (of: MonitorEvent) => void) => {
      const onEvent = (native: NativeMonitorEvent) => this.#tell(tell, decodeMonitorEvent(native));
      return call(subscribeMonitor, this.handle, event, number, domain?.handle, onEvent);
    };
    const key = `monitor ${JSON.stringify([event ?? null, number, domain?.uuid ?? null])}`;
    return this.#subscription(key, register, listener);
  }

  /** Through here, so that a subscription holds its connection. */
  #tell<Event>(listener: (event: Event) => void, event: Event): void {
    if (this.#closing === undefined) listener(event);
  }

  async #subscription<Event>(
    key: string,
    register: (tell: (event: Event) => void) => Promise<number>,
    listener: (event: Event) => void,
  ): Promise<Subscription> {
    const end = await this.#events.add(key, register, listener);
    let closing: Promise<void> | undefined;
    return {
      close: () => {
        closing ??= end();
        return closing;
      },
    };
  }

  async #unsubscribe(number: number): Promise<void> {
    // Closing the connection has ended it.
    if (this.#closing !== undefined) {
      await this.#closing;
      return;
    }
    // A daemon that does not answer has nothing to forget for anybody.
    const lifeline = Lifeline.of(this.handle);
    if (lifeline?.isCut) return;
    try {
      await call(libvirt().unsubscribe, this.handle, number);
    } catch (error) {
      if (!lifeline?.isCut) throw error;
    }
  }

  /** @internal */
  lost(reason: number): void {
    this.#onLost(closeReasons[reason] ?? 'unrecognised');
  }

  #onLost(reason: CloseReason): void {
    if (this.#lost || this.#closing !== undefined) return;
    this.#lost = true;
    this.emit('close', reason);
  }
}

function records(natives: readonly NativeRecord[]): DomainStatistics[] {
  return natives.map(({ domain, statistics }) => ({ domain: domainName(domain), statistics }));
}
