/** What the destination's host has for a domain that wants to come. Sizes in bytes, times in milliseconds. */
import type { VolumeType } from '@vmferry/native/libvirt/host';
import type { DomainInterface } from '../xml/domain-shape.ts';
import type { CpuVerdict, HostVersions } from './domain-facts.ts';

/** What is at a path. */
export type Place =
  | {
      readonly found: 'something';
      readonly kind: 'file' | 'block' | 'character' | 'directory' | 'socket' | 'other';
      readonly inode: number;
      /** Which block device it is (`deviceIdentity`), where that can be told. */
      readonly device?: string;
      /** What a block device holds, where that can be told. */
      readonly bytes?: number;
    }
  | { readonly found: 'nothing' }
  /** This agent may not look. */
  | { readonly found: 'unknown'; readonly why: string };

export type MachineSupport =
  | { readonly supported: true; readonly maxVcpus: number }
  /** In libvirt's words. */
  | { readonly supported: false; readonly why: string; readonly offered: readonly string[] };

export interface HostPages {
  readonly pageBytes: number;
  /** Free, all nodes together. */
  readonly free: number;
}

export interface KnownDomain {
  readonly name: string;
  readonly uuid: string;
  /** `coming-in`: another migration has not ended. */
  readonly state: 'inactive' | 'active' | 'coming-in';
}

/** A domain that runs here, and the interfaces that it has. */
export interface Neighbour {
  readonly name: string;
  readonly uuid: string;
  readonly interfaces: readonly DomainInterface[];
}

export interface KnownNetwork {
  readonly active: boolean;
  /** The host's bridge that it uses; "" for none. */
  readonly bridge: string;
}

export type KnownVolume =
  | { readonly found: 'no-pool' | 'inactive-pool' | 'nothing' }
  | { readonly found: 'volume'; readonly type: VolumeType; readonly path: string };

export interface HostListening {
  /** IP addresses of its own, as Node writes them. */
  readonly addresses: ReadonlySet<string>;
  /** Anything can be listened at, also what the host has not yet (`ip_nonlocal_bind`). */
  readonly anyAddress: boolean;
  /** TCP sockets that listen. */
  readonly taken: readonly { readonly address: string; readonly port: number }[];
}

export interface HostFacts {
  readonly host: { readonly uuid: string; readonly name: string };
  readonly versions: HostVersions;
  /** Of the domain's architecture, as libvirt's capabilities list them, and those that the agent's configuration adds. */
  readonly emulators: readonly string[];
  readonly machine: MachineSupport;
  /** Of the guest's CPU, here. */
  readonly cpu: CpuVerdict;
  /** What a kind of device can be, by "disk/bus"; one that is not there is not told. */
  readonly kinds: ReadonlyMap<string, readonly string[]>;
  readonly memory: { readonly totalBytes: number; readonly availableBytes: number };
  readonly pages: readonly HostPages[];
  /** The size of a huge page where a domain names none. */
  readonly defaultHugePageBytes: number | undefined;
  readonly cpus: readonly number[];
  readonly nodes: readonly number[];
  /** libvirt's networks. */
  readonly networks: ReadonlyMap<string, KnownNetwork>;
  /** Filters of libvirt's for interfaces; undefined where that has none. */
  readonly networkFilters: ReadonlySet<string> | undefined;
  /** Of each disk that is a volume, by the disk's target: what there is here; one that is not there is not told. */
  readonly volumes: ReadonlyMap<string, KnownVolume>;
  /** Undefined where libvirt does not tell. */
  readonly secrets: readonly { readonly uuid: string; readonly usage: string }[] | undefined;
  /** The host's interfaces: whether each is a bridge. Undefined where they cannot be listed. */
  readonly interfaces: ReadonlyMap<string, boolean> | undefined;
  /** Domains here with the name or the UUID. */
  readonly domains: readonly KnownDomain[];
  /** Looked at only where the domain that comes has interfaces. */
  readonly neighbours: readonly Neighbour[];
  /** Looked at only for a domain with graphics; undefined where this agent cannot tell. */
  readonly listening: HostListening | undefined;
  /** What is at the paths that the domain names. */
  readonly places: ReadonlyMap<string, Place>;
  readonly userfaultfd: { readonly available: true } | { readonly available: false; readonly why: string };
  /** The agent takes domains with arguments for QEMU of their own. */
  readonly ownArgumentsAllowed: boolean;
  /** Whom QEMU runs as; undefined where libvirt does not tell. */
  readonly qemuUser: { readonly uid: number; readonly gid: number } | undefined;
  readonly wallClockMs: number;
}
