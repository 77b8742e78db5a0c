import { setTimeout as sleep } from 'node:timers/promises';
import { boundsError } from '../errors.ts';
import { type CallOptions, call, callUntil, requireText, requireU64, requireWhole } from './call.ts';
import { isLibvirtError, MonitorCommandError } from './errors.ts';
import * as flags from './flags.ts';
import { bits, type FlagsOf } from './flags.ts';
import { type Job, type JobInfo, type JobStatistics, jobOperation, jobType } from './job.ts';
import { libvirt } from './library.ts';
import { Lifeline } from './lifeline.ts';
import { type MigrationParameters, migrationParameters } from './migration-parameters.ts';
import { type DomainState, domainState } from './states.ts';
import type {
  BlockInfo,
  ConnectionHandle,
  DomainHandle,
  NativeBlockJob,
  NativeDomain,
  NativeDomainInfo,
} from './table.ts';

export type AddressSource = 'lease' | 'agent' | 'arp';

export interface DomainInterface {
  /** On the host (`vnet0`) for `lease` and `arp`, in the guest (`eth0`) for `agent`. */
  readonly name: string;
  /** "52:54:00:12:34:56"; "" where there is none. */
  readonly hardwareAddress: string;
  readonly addresses: readonly {
    readonly family: 'ipv4' | 'ipv6';
    readonly address: string;
    /** Bits of the network's prefix; 0 where the source does not know it (`arp`). */
    readonly prefix: number;
  }[];
}

export interface DomainInfo extends Omit<NativeDomainInfo, 'state'> {
  readonly state: DomainState['state'];
}

export type BlockJobType =
  | 'unknown'
  | 'pull'
  | 'copy'
  | 'commit'
  | 'active-commit'
  | 'backup'
  | 'unrecognised';

export interface BlockJob extends Omit<NativeBlockJob, 'type'> {
  readonly type: BlockJobType;
}

export interface MigrateOptions extends MigrationParameters {
  readonly flags: FlagsOf<typeof flags.migrateFlags>;
  /**
   * Asks libvirt to abort the job, and goes on asking until it has one to abort. The promise settles when the migration
   * has ended, one way or the other: with `VIR_ERR_OPERATION_ABORTED`, or with success where it was too late. In
   * post-copy libvirt refuses, and the migration goes on.
   */
  readonly signal?: AbortSignal;
}

/** A `LibvirtConnection`, as far as domains know it. */
export interface DomainOwner {
  /** @internal */
  readonly handle: ConnectionHandle;
}

const addressSources: Readonly<Record<AddressSource, number>> = { lease: 0, agent: 1, arp: 2 };
// As `virDomainBlockJobType` numbers them.
const blockJobTypes: readonly BlockJobType[] = [
  'unknown',
  'pull',
  'copy',
  'commit',
  'active-commit',
  'backup',
];
const IPV6 = 1;
const MAX_DIRTY_RATE_SECONDS = 60;
const ABORT_AGAIN_MS = 50;

/**
 * A domain on one connection: libvirt's reference to it, by UUID, whether it runs or not. Gives the reference back by
 * `free`, with its connection, or when it is collected.
 *
 * Every call fails with `LibvirtError`, with `E_NATIVE_CLOSED` once it is freed or its connection closed, and with
 * `E_NATIVE_BOUNDS` for an argument that cannot be right.
 */
export class Domain {
  readonly name: string;
  readonly uuid: string;
  /** @internal */
  readonly handle: DomainHandle;

  /** Held, so that it is not collected while its domains are in use. */
  readonly connection: DomainOwner;

  /** @internal */
  constructor(native: NativeDomain, connection: DomainOwner) {
    this.connection = connection;
    this.name = native.name;
    this.uuid = native.uuid;
    this.handle = native.handle;
    Lifeline.share(native.handle, connection.handle);
  }

  /** Any number of times. Calls that are under way end as they would. */
  free(): void {
    libvirt().free(this.handle);
  }

  /** The hypervisor's number for it as libvirt last told this reference; undefined where it does not run. */
  async id(): Promise<number | undefined> {
    const id = await call(libvirt().id, this.handle);
    return id < 0 ? undefined : id;
  }

  async xml(names: FlagsOf<typeof flags.xmlFlags> = []): Promise<string> {
    return call(libvirt().xml, this.handle, bits(flags.xmlFlags, names));
  }

  async state(): Promise<DomainState> {
    const [state, reason] = await call(libvirt().state, this.handle);
    return domainState(state, reason);
  }

  async info(): Promise<DomainInfo> {
    const { state, ...rest } = await call(libvirt().info, this.handle);
    return { ...rest, state: domainState(state, 0).state };
  }

  async isActive(): Promise<boolean> {
    return call(libvirt().isActive, this.handle);
  }

  /** Whether it has a definition that stays when it stops. */
  async isPersistent(): Promise<boolean> {
    return call(libvirt().isPersistent, this.handle);
  }

  /** Whether its definition was changed since it started. */
  async isUpdated(): Promise<boolean> {
    return call(libvirt().isUpdated, this.handle);
  }

  /** Starts a domain that is defined. */
  async create(names: FlagsOf<typeof flags.createFlags> = [], { signal }: CallOptions = {}): Promise<void> {
    const number = bits(flags.createFlags, names);
    await callUntil(signal, libvirt().create, this.handle, number);
  }

  /** Ends it at once, as pulling the plug would. A transient domain is gone then. */
  async destroy(names: FlagsOf<typeof flags.destroyFlags> = [], { signal }: CallOptions = {}): Promise<void> {
    const number = bits(flags.destroyFlags, names);
    await callUntil(signal, libvirt().destroy, this.handle, number);
  }

  /** Asks the guest to shut down. */
  async shutdown(): Promise<void> {
    await call(libvirt().shutdown, this.handle, 0);
  }

  /** Removes its definition; one that runs goes on as a transient domain. */
  async undefine(names: FlagsOf<typeof flags.undefineFlags> = []): Promise<void> {
    await call(libvirt().undefine, this.handle, bits(flags.undefineFlags, names));
  }

  async suspend(): Promise<void> {
    await call(libvirt().suspend, this.handle);
  }

  async resume(): Promise<void> {
    await call(libvirt().resume, this.handle);
  }

  async attachDevice(xml: string, names: FlagsOf<typeof flags.deviceFlags> = []): Promise<void> {
    await call(libvirt().attachDevice, this.handle, requireText(xml, 'xml'), bits(flags.deviceFlags, names));
  }

  /** Resolves when the guest was asked; that it let go is the event `device-removed`. */
  async detachDevice(xml: string, names: FlagsOf<typeof flags.deviceFlags> = []): Promise<void> {
    await call(libvirt().detachDevice, this.handle, requireText(xml, 'xml'), bits(flags.deviceFlags, names));
  }

  /** Of a disk, by its target (`vda`) or the path of its image. */
  async blockInfo(disk: string): Promise<BlockInfo> {
    return call(libvirt().blockInfo, this.handle, requireText(disk, 'disk'));
  }

  /** What is being done with a disk, by its target or the path of its image; undefined for nothing. */
  async blockJob(disk: string): Promise<BlockJob | undefined> {
    const job = await call(libvirt().blockJob, this.handle, requireText(disk, 'disk'));
    return job && { ...job, type: blockJobTypes[job.type] ?? 'unrecognised' };
  }

  /** Addresses of its interfaces: from the leases of libvirt's networks, the guest agent, or the host's ARP table. */
  async addresses(source: AddressSource, { signal }: CallOptions = {}): Promise<DomainInterface[]> {
    if (!Object.hasOwn(addressSources, source)) throw boundsError(`there is no source '${String(source)}'`);
    const interfaces = await callUntil(signal, libvirt().addresses, this.handle, addressSources[source]);
    return interfaces.map(({ name, hardwareAddress, addresses }) => ({
      name,
      hardwareAddress,
      addresses: addresses.map(({ type, address, prefix }) => ({
        family: type === IPV6 ? 'ipv6' : 'ipv4',
        address,
        prefix,
      })),
    }));
  }

  /**
   * Starts to measure how fast the guest writes, for 1 to 60 seconds. `dirtyRate` of `LibvirtConnection` has the
   * result.
   */
  async startDirtyRateCalculation(
    seconds: number,
    mode: keyof typeof flags.dirtyRateModes = 'sampling',
  ): Promise<void> {
    requireWhole(seconds, 1, MAX_DIRTY_RATE_SECONDS, 'seconds');
    await call(libvirt().startDirtyRate, this.handle, seconds, bits(flags.dirtyRateModes, [mode]));
  }

  /**
   * Migrates, and resolves when that is over. With `peer-to-peer` the URI is the destination's libvirtd as the source's
   * sees it; without, it is the hypervisor's own, or undefined for a driver that needs none.
   */
  async migrateToUri(
    uri: string | undefined,
    { flags: names, signal, ...rest }: MigrateOptions,
  ): Promise<void> {
    const to = uri === undefined ? undefined : requireText(uri, 'uri');
    const parameters = migrationParameters(rest);
    const number = bits(flags.migrateFlags, names);
    await this.#abortable(() => call(libvirt().migrateToUri, this.handle, to, parameters, number), signal);
  }

  /**
   * Migrates with this process between the two libvirtds: it ends with the process. Resolves with the domain on the
   * destination.
   */
  async migrate(
    destination: DomainOwner,
    { flags: names, signal, ...rest }: MigrateOptions,
  ): Promise<Domain> {
    const parameters = migrationParameters(rest);
    const number = bits(flags.migrateFlags, names);
    const native = await this.#abortable(
      () => call(libvirt().migrate, this.handle, destination.handle, parameters, number),
      signal,
    );
    return new Domain(native, destination);
  }

  /** From the first iteration on, for a migration that was started with `post-copy`. */
  async startPostCopy(): Promise<void> {
    await call(libvirt().startPostCopy, this.handle);
  }

  /** Milliseconds that a migration may stop the guest for at its end. */
  async maxDowntimeMs(): Promise<bigint> {
    return call(libvirt().maxDowntime, this.handle);
  }

  async setMaxDowntimeMs(milliseconds: bigint | number): Promise<void> {
    await call(libvirt().setMaxDowntime, this.handle, requireU64(milliseconds, 'milliseconds'));
  }

  /** MiB/s of a migration, of its rounds or of post-copy. */
  async maxSpeedMib(names: FlagsOf<typeof flags.maxSpeedFlags> = []): Promise<bigint> {
    return call(libvirt().maxSpeed, this.handle, bits(flags.maxSpeedFlags, names));
  }

  async setMaxSpeedMib(
    mibPerSecond: bigint | number,
    names: FlagsOf<typeof flags.maxSpeedFlags> = [],
  ): Promise<void> {
    const speed = requireU64(mibPerSecond, 'mibPerSecond');
    await call(libvirt().setMaxSpeed, this.handle, speed, bits(flags.maxSpeedFlags, names));
  }

  /** Bytes of the cache of xbzrle. */
  async compressionCacheBytes(): Promise<bigint> {
    return call(libvirt().compressionCache, this.handle);
  }

  async setCompressionCacheBytes(bytes: bigint | number): Promise<void> {
    await call(libvirt().setCompressionCache, this.handle, requireU64(bytes, 'bytes'));
  }

  async jobInfo(): Promise<JobInfo> {
    const { type, ...rest } = await call(libvirt().jobInfo, this.handle);
    return { ...rest, type: jobType(type) };
  }

  /**
   * Of the job that is under way, or of the last one (`completed`). A transient domain that left takes its own along:
   * the event `job-completed` has them.
   */
  async job(names: FlagsOf<typeof flags.jobStatisticsFlags> = []): Promise<Job> {
    const { type, statistics } = await call(
      libvirt().jobStatistics,
      this.handle,
      bits(flags.jobStatisticsFlags, names),
    );
    return {
      type: jobType(type),
      operation: jobOperation(statistics),
      statistics: statistics as JobStatistics,
    };
  }

  /** `VIR_ERR_OPERATION_INVALID` where there is none, or it cannot be aborted (any more). */
  async abortJob(names: FlagsOf<typeof flags.abortJobFlags> = []): Promise<void> {
    await call(libvirt().abortJob, this.handle, bits(flags.abortJobFlags, names));
  }

  /** A command to QEMU's monitor (QMP); resolves with its `return`. What QEMU refuses is a `MonitorCommandError`. */
  async monitorCommand(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    { signal }: CallOptions = {},
  ): Promise<unknown> {
    const text = JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }) });
    const answer = JSON.parse(await callUntil(signal, libvirt().monitorCommand, this.handle, text, 0)) as {
      return?: unknown;
      error?: { class?: string; desc?: string };
    };
    if (answer.error !== undefined) throw new MonitorCommandError(command, answer.error);
    return answer.return;
  }

  /** A command to QEMU's monitor as people type it; resolves with its text. */
  async humanMonitorCommand(command: string, { signal }: CallOptions = {}): Promise<string> {
    const text = requireText(command, 'command');
    const number = bits(flags.monitorCommandFlags, ['human']);
    return callUntil(signal, libvirt().monitorCommand, this.handle, text, number);
  }

  /** A command to the guest agent; resolves with its `return`. Waits for `timeoutSeconds` (default 5). */
  async agentCommand(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    { timeoutSeconds = 5, signal }: CallOptions & { readonly timeoutSeconds?: number } = {},
  ): Promise<unknown> {
    const text = JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }) });
    requireWhole(timeoutSeconds, 1, 2 ** 31 - 1, 'timeoutSeconds');
    const answer = await callUntil(signal, libvirt().agentCommand, this.handle, text, timeoutSeconds);
    return (JSON.parse(answer) as { return?: unknown }).return;
  }

  async #abortable<T>(migrate: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal === undefined) return migrate();
    signal.throwIfAborted();
    const over = new AbortController();
    let aborting: Promise<void> | undefined;
    const onAbort = () => {
      aborting = this.#abortUntil(over.signal);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await migrate();
    } finally {
      signal.removeEventListener('abort', onAbort);
      over.abort();
      await aborting;
    }
  }

  /** libvirt refuses before the job has begun, and once it cannot be aborted any more. */
  async #abortUntil(over: AbortSignal): Promise<void> {
    while (!over.aborted) {
      try {
        await this.abortJob();
        return;
      } catch (error) {
        // What else can go wrong (the connection lost, the domain gone) ends the migration's own call, which tells.
        if (!isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID')) return;
      }
      await sleep(ABORT_AGAIN_MS, undefined, { signal: over }).catch(() => {});
    }
  }
}
