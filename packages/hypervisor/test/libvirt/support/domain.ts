import type { DomainFacts } from '@vmferry/hypervisor/libvirt/preflight/domain-facts';
import type { HostFacts } from '@vmferry/hypervisor/libvirt/preflight/host-facts';
import { readDomain } from '@vmferry/hypervisor/libvirt/xml/domain';
import type { DomainShape } from '@vmferry/hypervisor/libvirt/xml/domain-shape';

export const GiB = 1024 ** 3;
export const MiB = 1024 ** 2;

export const UUID = '11111111-2222-4000-8000-000000000001';
export const OTHER_UUID = '11111111-2222-4000-8000-000000000002';

export function domainXml({
  devices = '',
  more = '',
  os = '',
  attributes = '',
  cpu = `<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>qemu64</model></cpu>`,
  memory = `<memory unit='KiB'>1048576</memory>`,
} = {}): string {
  return `<domain type='kvm' ${attributes}><name>web</name><uuid>${UUID}</uuid>${memory}
    <vcpu placement='static'>2</vcpu>
    <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>${os}</os>${cpu}${more}
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${devices}</devices></domain>`;
}

export const shape = (parts: Parameters<typeof domainXml>[0] = {}): DomainShape =>
  readDomain(domainXml(parts));

export function domainFacts(changes: Partial<DomainFacts> = {}): DomainFacts {
  return {
    shape: shape(),
    images: [],
    host: { uuid: 'aaaaaaaa-0000-4000-8000-00000000000a', name: 'host-a' },
    hostCpuXml: '',
    cpu: { verdict: 'usable' },
    versions: { libvirt: 9_000_000, hypervisor: 7_002_022 },
    snapshots: false,
    checkpoints: false,
    blockJobs: [],
    copyStorage: 'none',
    copied: [],
    wallClockMs: 1_000_000,
    ...changes,
  };
}

/** A host that takes the domain in. */
export function hostFacts(changes: Partial<HostFacts> = {}): HostFacts {
  return {
    host: { uuid: 'bbbbbbbb-0000-4000-8000-00000000000b', name: 'host-b' },
    versions: { libvirt: 9_000_000, hypervisor: 7_002_022 },
    emulators: ['/usr/bin/qemu-system-x86_64'],
    machine: { supported: true, maxVcpus: 288 },
    cpu: { verdict: 'usable' },
    kinds: new Map([['disk/bus', ['virtio', 'sata']]]),
    memory: { totalBytes: 16 * GiB, availableBytes: 8 * GiB },
    pages: [{ pageBytes: 2 * MiB, free: 1024 }],
    defaultHugePageBytes: 2 * MiB,
    cpus: [0, 1, 2, 3],
    nodes: [0],
    networks: new Map([
      ['default', { active: true, bridge: 'br0' }],
      ['off', { active: false, bridge: 'virbr1' }],
      ['stale', { active: true, bridge: 'virbr2' }],
      ['passthrough', { active: true, bridge: '' }],
    ]),
    networkFilters: new Set(['clean-traffic']),
    volumes: new Map(),
    secrets: [{ uuid: OTHER_UUID, usage: 'backup' }],
    interfaces: new Map([
      ['br0', true],
      ['eth0', false],
    ]),
    domains: [],
    neighbours: [],
    listening: { addresses: new Set(['10.0.0.2', 'fd00::2']), anyAddress: false, taken: [] },
    places: new Map(),
    userfaultfd: { available: true },
    ownArgumentsAllowed: false,
    qemuUser: { uid: 64_055, gid: 64_055 },
    wallClockMs: 1_000_000,
    ...changes,
  };
}
