/** The libvirt part of the addon's table, as cc/libvirt/binding.cc fills it. Only this folder's modules use it. */

declare const connectionBrand: unique symbol;
declare const domainBrand: unique symbol;

/** Opaque: the addon's objects. */
export interface ConnectionHandle {
  readonly [connectionBrand]: true;
}
export interface DomainHandle {
  readonly [domainBrand]: true;
}

export interface NativeDomain {
  readonly handle: DomainHandle;
  readonly name: string;
  readonly uuid: string;
}

/** Code 0 is libvirt's own error; the others are those of cc/outcome.h and have only a message. */
export interface NativeFailure {
  readonly code: number;
  readonly message: string;
  readonly call: string;
  readonly number: number;
  readonly domain: number;
  readonly level: number;
  readonly details: readonly string[];
}

/** Called on the event loop, once. */
export type SettleCall<T> = (failure: NativeFailure | undefined, value: T) => void;

/** [field, type as a number of virTypedParameterType, value] */
export type ParameterEntry = readonly [string, number, unknown];

export interface NativeCredentialRequest {
  readonly type: number;
  readonly prompt: string;
  readonly challenge: string;
  readonly suggestion: string;
}

export type NativeParameters = Readonly<
  Record<string, number | bigint | boolean | string | readonly (number | bigint | boolean | string)[]>
>;

export interface NativeDomainName {
  readonly name: string;
  readonly uuid: string;
  readonly id: number;
}

export interface NativeRecord {
  readonly domain: NativeDomainName;
  readonly statistics: NativeParameters;
}

export interface NativeInterface {
  readonly name: string;
  readonly hardwareAddress: string;
  readonly addresses: readonly { readonly type: number; readonly address: string; readonly prefix: number }[];
}

/** Returns the call's number, for `abandon`. */
type OnConnection<Value, Args extends readonly unknown[] = []> = (
  connection: ConnectionHandle,
  ...args: [...Args, settle: SettleCall<Value>]
) => number;
type OnDomain<Value, Args extends readonly unknown[] = []> = (
  domain: DomainHandle,
  ...args: [...Args, settle: SettleCall<Value>]
) => number;
type Maybe = string | undefined;

export interface Opened {
  readonly connection: ConnectionHandle;
  readonly keepsAlive: boolean;
}

export interface LibvirtTable {
  load(library: string, qemuLibrary: string): number;
  typedParameters(entries: readonly ParameterEntry[]): NativeParameters;
  open(
    uri: Maybe,
    flags: number,
    credentialTypes: Uint32Array,
    onCredentials:
      | ((question: [readonly NativeCredentialRequest[], (answers?: readonly string[]) => void]) => void)
      | undefined,
    keepAliveIntervalSeconds: number,
    keepAliveCount: number,
    onLost: (reason: number) => void,
    settle: SettleCall<Opened>,
  ): number;
  abandon(call: number): void;
  close(connection: ConnectionHandle, settle: SettleCall<number>): number;
  free(domain: DomainHandle): void;

  readonly isAlive: OnConnection<boolean>;
  readonly isEncrypted: OnConnection<boolean>;
  readonly isSecure: OnConnection<boolean>;
  readonly hostname: OnConnection<string>;
  readonly uri: OnConnection<string>;
  readonly driver: OnConnection<string>;
  readonly hypervisorVersion: OnConnection<number>;
  readonly daemonVersion: OnConnection<number>;
  readonly maxVcpus: OnConnection<number, [Maybe]>;
  readonly capabilities: OnConnection<string>;
  readonly domainCapabilities: OnConnection<string, [Maybe, Maybe, Maybe, Maybe]>;
  readonly cpuModels: OnConnection<string[], [string]>;
  readonly compareCpu: OnConnection<number, [string, number]>;
  readonly compareHypervisorCpu: OnConnection<number, [Maybe, Maybe, Maybe, Maybe, string, number]>;
  readonly nodeInfo: OnConnection<NodeInfo>;
  readonly freeMemory: OnConnection<bigint>;
  readonly memoryStats: OnConnection<Readonly<Record<string, bigint>>, [number]>;
  readonly freePages: OnConnection<bigint[], [Uint32Array, number, number]>;
  readonly networks: OnConnection<
    { readonly name: string; readonly uuid: string; readonly bridge: string; readonly active: boolean }[]
  >;

  readonly networkFilters: OnConnection<string[]>;
  readonly pools: OnConnection<{ readonly name: string; readonly uuid: string; readonly active: boolean }[]>;
  readonly volume: OnConnection<NativeVolume, [string, string]>;
  readonly removeVolume: OnConnection<undefined, [string, string]>;
  readonly secrets: OnConnection<
    { readonly uuid: string; readonly usageType: number; readonly usage: string }[]
  >;

  readonly list: OnConnection<NativeDomain[], [number]>;
  readonly lookupByName: OnConnection<NativeDomain, [string]>;
  readonly lookupByUuid: OnConnection<NativeDomain, [string]>;
  readonly lookupById: OnConnection<NativeDomain, [number]>;
  readonly define: OnConnection<NativeDomain, [string, number]>;
  readonly createTransient: OnConnection<NativeDomain, [string, number]>;
  readonly allStatistics: OnConnection<NativeRecord[], [number, number]>;
  readonly statistics: OnConnection<NativeRecord[], [readonly DomainHandle[], number, number]>;

  readonly id: OnDomain<number>;
  readonly xml: OnDomain<string, [number]>;
  readonly info: OnDomain<NativeDomainInfo>;
  readonly state: OnDomain<readonly [number, number]>;
  readonly isActive: OnDomain<boolean>;
  readonly isPersistent: OnDomain<boolean>;
  readonly isUpdated: OnDomain<boolean>;
  readonly create: OnDomain<undefined, [number]>;
  readonly destroy: OnDomain<undefined, [number]>;
  readonly undefine: OnDomain<undefined, [number]>;
  readonly shutdown: OnDomain<undefined, [number]>;
  readonly suspend: OnDomain<undefined>;
  readonly resume: OnDomain<undefined>;
  readonly attachDevice: OnDomain<undefined, [string, number]>;
  readonly detachDevice: OnDomain<undefined, [string, number]>;
  readonly blockInfo: OnDomain<BlockInfo, [string]>;
  readonly blockJob: OnDomain<NativeBlockJob | undefined, [string]>;
  readonly addresses: OnDomain<NativeInterface[], [number]>;
  readonly startDirtyRate: OnDomain<undefined, [number, number]>;
  readonly jobInfo: OnDomain<NativeJobInfo>;
  readonly jobStatistics: OnDomain<
    { readonly type: number; readonly statistics: NativeParameters },
    [number]
  >;
  readonly abortJob: OnDomain<undefined, [number]>;

  readonly migrateToUri: OnDomain<undefined, [Maybe, readonly ParameterEntry[], number]>;
  readonly migrate: OnDomain<NativeDomain, [ConnectionHandle, readonly ParameterEntry[], number]>;
  readonly startPostCopy: OnDomain<undefined>;
  readonly maxDowntime: OnDomain<bigint>;
  readonly setMaxDowntime: OnDomain<undefined, [bigint]>;
  readonly maxSpeed: OnDomain<bigint, [number]>;
  readonly setMaxSpeed: OnDomain<undefined, [bigint, number]>;
  readonly compressionCache: OnDomain<bigint>;
  readonly setCompressionCache: OnDomain<undefined, [bigint]>;

  readonly monitorCommand: OnDomain<string, [string, number]>;
  readonly agentCommand: OnDomain<string, [string, number]>;

  subscribe(
    connection: ConnectionHandle,
    event: number,
    domain: DomainHandle | undefined,
    onEvent: (event: never) => void,
    settle: SettleCall<number>,
  ): void;
  subscribeMonitor(
    connection: ConnectionHandle,
    pattern: Maybe,
    flags: number,
    domain: DomainHandle | undefined,
    onEvent: (event: never) => void,
    settle: SettleCall<number>,
  ): void;
  unsubscribe(connection: ConnectionHandle, subscription: number, settle: SettleCall<undefined>): void;
}

/** What a host has. */
export interface NodeInfo {
  /** Of the CPU, such as "x86_64". */
  readonly model: string;
  readonly memoryKib: bigint;
  /** Those that are online. */
  readonly cpus: number;
  /** 0 where it is not known. */
  readonly mhz: number;
  readonly numaNodes: number;
  readonly socketsPerNode: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
}

export interface BlockInfo {
  /** As the guest sees it. */
  readonly capacityBytes: bigint;
  /** What the image takes of its storage. Of a raw one that a running guest has written to: how far it has written. */
  readonly allocationBytes: bigint;
  /** The size of the image's file or device, holes and all. */
  readonly physicalBytes: bigint;
}

export interface NativeVolume {
  readonly type: number;
  readonly path: string;
  readonly capacityBytes: bigint;
  readonly allocationBytes: bigint;
}

export interface NativeBlockJob {
  readonly type: number;
  /** 0: without a limit. */
  readonly bandwidthBytesPerSec: bigint;
  /** Of `total`, in a unit of the hypervisor's. */
  readonly processed: bigint;
  readonly total: bigint;
}

export interface NativeDomainInfo {
  readonly state: number;
  readonly maxMemoryKib: bigint;
  readonly memoryKib: bigint;
  readonly vcpus: number;
  readonly cpuTimeNs: bigint;
}

export interface NativeJobInfo {
  readonly type: number;
  readonly timeElapsedMs: bigint;
  readonly timeRemainingMs: bigint;
  readonly dataTotalBytes: bigint;
  readonly dataProcessedBytes: bigint;
  readonly dataRemainingBytes: bigint;
  readonly memoryTotalBytes: bigint;
  readonly memoryProcessedBytes: bigint;
  readonly memoryRemainingBytes: bigint;
  readonly fileTotalBytes: bigint;
  readonly fileProcessedBytes: bigint;
  readonly fileRemainingBytes: bigint;
}
