import { boundsError, NativeError } from '../errors.ts';
import { call, requireText, requireWhole } from './call.ts';
import * as flags from './flags.ts';
import { bits, type FlagsOf } from './flags.ts';
import { libvirt } from './library.ts';
import type { ConnectionHandle, NodeInfo } from './table.ts';

/** What domain capabilities and CPUs are asked about; what is left out libvirt chooses. */
export interface HypervisorChoice {
  /** The path of a QEMU. */
  readonly emulator?: string;
  /** "x86_64" */
  readonly architecture?: string;
  /** "pc-q35-7.2" */
  readonly machine?: string;
  /** "kvm", "qemu" */
  readonly virtType?: string;
}

/** Of a CPU against a host's: `superset` means that the host's can do more. */
export type CpuComparison = 'incompatible' | 'identical' | 'superset';

export interface Network {
  readonly name: string;
  readonly uuid: string;
  /** "" for a network without one of its own. */
  readonly bridge: string;
  readonly active: boolean;
}

export interface StoragePool {
  readonly name: string;
  readonly uuid: string;
  readonly active: boolean;
}

export type VolumeType = 'file' | 'block' | 'dir' | 'network' | 'netdir' | 'ploop' | 'unrecognised';

export interface StorageVolume {
  readonly type: VolumeType;
  /** Where the host has it, as QEMU is told. */
  readonly path: string;
  readonly capacityBytes: bigint;
  readonly allocationBytes: bigint;
}

export type SecretUsage = 'none' | 'volume' | 'ceph' | 'iscsi' | 'tls' | 'vtpm' | 'unrecognised';

/** A secret's value is never asked for. */
export interface Secret {
  readonly uuid: string;
  readonly usageType: SecretUsage;
  /** What domains may name it by in place of its UUID; "" where there is none. */
  readonly usage: string;
}

// As `virStorageVolType` and `virSecretUsageType` number them.
const volumeTypes: readonly VolumeType[] = ['file', 'block', 'dir', 'network', 'netdir', 'ploop'];
const secretUsages: readonly SecretUsage[] = ['none', 'volume', 'ceph', 'iscsi', 'tls', 'vtpm'];

const comparisons: readonly CpuComparison[] = ['incompatible', 'identical', 'superset'];

/** The host at the other end of a connection: its libvirt and hypervisor, and what they can do. Fails as that does. */
export class LibvirtHost {
  /** @internal */
  readonly handle: ConnectionHandle;

  /** @internal */
  constructor(handle: ConnectionHandle) {
    this.handle = handle;
  }

  /** Whether the connection to it is. Asks nobody. */
  async isEncrypted(): Promise<boolean> {
    return call(libvirt().isEncrypted, this.handle);
  }

  /** Encrypted, or of this host. */
  async isSecure(): Promise<boolean> {
    return call(libvirt().isSecure, this.handle);
  }

  async hostname(): Promise<string> {
    return call(libvirt().hostname, this.handle);
  }

  async uri(): Promise<string> {
    return call(libvirt().uri, this.handle);
  }

  /** "QEMU", "TEST". */
  async driver(): Promise<string> {
    return call(libvirt().driver, this.handle);
  }

  /** Of the hypervisor: 7002022 is 7.2.22. */
  async hypervisorVersion(): Promise<number> {
    return call(libvirt().hypervisorVersion, this.handle);
  }

  /** Of libvirt at the other end: 9000000 is 9.0.0. */
  async daemonVersion(): Promise<number> {
    return call(libvirt().daemonVersion, this.handle);
  }

  /** vCPUs that a domain may have. */
  async maxVcpus(virtType?: string): Promise<number> {
    return call(libvirt().maxVcpus, this.handle, virtType);
  }

  /** Of the host, as XML. */
  async capabilities(): Promise<string> {
    return call(libvirt().capabilities, this.handle);
  }

  /** What domains of this kind can have, as XML. */
  async domainCapabilities(choice: HypervisorChoice = {}): Promise<string> {
    return call(libvirt().domainCapabilities, this.handle, ...chosen(choice));
  }

  /** Names of the CPU models that libvirt knows for an architecture. */
  async cpuModels(architecture: string): Promise<string[]> {
    return call(libvirt().cpuModels, this.handle, requireText(architecture, 'architecture'));
  }

  /** A CPU (`<cpu>` or capabilities, as XML) against the host's. */
  async compareCpu(xml: string, names: FlagsOf<typeof flags.compareFlags> = []): Promise<CpuComparison> {
    const number = bits(flags.compareFlags, names);
    return comparison(await call(libvirt().compareCpu, this.handle, requireText(xml, 'xml'), number));
  }

  /** A CPU (`<cpu>`, as XML) against what the hypervisor can give a guest on this host. */
  async compareHypervisorCpu(
    xml: string,
    choice: HypervisorChoice = {},
    names: FlagsOf<typeof flags.compareFlags> = [],
  ): Promise<CpuComparison> {
    requireText(xml, 'xml');
    const number = bits(flags.compareFlags, names);
    return comparison(
      await call(libvirt().compareHypervisorCpu, this.handle, ...chosen(choice), xml, number),
    );
  }

  async nodeInfo(): Promise<NodeInfo> {
    return call(libvirt().nodeInfo, this.handle);
  }

  /** Bytes. */
  async freeMemory(): Promise<bigint> {
    return call(libvirt().freeMemory, this.handle);
  }

  /** KiB of the whole host or one NUMA node: `total`, `free`, `buffers`, `cached`. */
  async memoryStats(numaNode?: number): Promise<Readonly<Record<string, bigint>>> {
    const cell = numaNode === undefined ? -1 : requireWhole(numaNode, 0, 4095, 'numaNode');
    return call(libvirt().memoryStats, this.handle, cell);
  }

  /** Free pages of each of these sizes (in KiB) on one NUMA node. */
  async freePages(sizesKib: readonly number[], numaNode = 0): Promise<bigint[]> {
    for (const size of sizesKib) requireWhole(size, 1, 2 ** 32 - 1, 'a size in KiB');
    if (sizesKib.length < 1 || sizesKib.length > 64) throw boundsError('1 to 64 sizes');
    requireWhole(numaNode, 0, 4095, 'numaNode');
    return call(libvirt().freePages, this.handle, Uint32Array.from(sizesKib), numaNode, 1);
  }

  /** libvirt's own networks, active or not. */
  async networks(): Promise<Network[]> {
    return call(libvirt().networks, this.handle);
  }

  /** Names of libvirt's filters for interfaces (`nwfilter`). */
  async networkFilters(): Promise<string[]> {
    return call(libvirt().networkFilters, this.handle);
  }

  /** libvirt's storage pools, active or not. */
  async pools(): Promise<StoragePool[]> {
    return call(libvirt().pools, this.handle);
  }

  /** Fails with `VIR_ERR_NO_STORAGE_POOL` or `VIR_ERR_NO_STORAGE_VOL` where there is none. */
  async volume(pool: string, name: string): Promise<StorageVolume> {
    const { type, ...volume } = await call(
      libvirt().volume,
      this.handle,
      requireText(pool, 'pool'),
      requireText(name, 'name'),
    );
    return { ...volume, type: volumeTypes[type] ?? 'unrecognised' };
  }

  /** What is in it is lost. Fails as `volume` does. */
  async removeVolume(pool: string, name: string): Promise<void> {
    await call(libvirt().removeVolume, this.handle, requireText(pool, 'pool'), requireText(name, 'name'));
  }

  /** libvirt's secrets, without their values. */
  async secrets(): Promise<Secret[]> {
    const found = await call(libvirt().secrets, this.handle);
    return found.map((each) => ({ ...each, usageType: secretUsages[each.usageType] ?? 'unrecognised' }));
  }
}

function chosen({ emulator, architecture, machine, virtType }: HypervisorChoice) {
  return [emulator, architecture, machine, virtType] as const;
}

function comparison(number: number): CpuComparison {
  const result = comparisons[number];
  if (result === undefined) throw new NativeError('E_NATIVE_BOUNDS', `libvirt compared to ${number}`);
  return result;
}
