/** What the rules say of a domain and a host. Each table has what is in the way, and what is not. */
import type { ErrorCode } from '@vmferry/engine/errors';
import {
  type DomainFacts,
  domainFactsSchema,
  parseDomainFacts,
} from '@vmferry/hypervisor/libvirt/preflight/domain-facts';
import { type Finding, notes, refusals } from '@vmferry/hypervisor/libvirt/preflight/finding';
import type {
  HostFacts,
  HostListening,
  KnownVolume,
  Place,
} from '@vmferry/hypervisor/libvirt/preflight/host-facts';
import type { PreflightPlan } from '@vmferry/hypervisor/libvirt/preflight/plan';
import { destFindings, sourceFindings } from '@vmferry/hypervisor/libvirt/preflight/preflight';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { domainFacts, GiB, hostFacts, MiB, OTHER_UUID, shape, UUID } from '../support/domain.ts';

const PLAIN: PreflightPlan = { postcopy: false };
/** What the facts say where the disk is to be copied. */
const copied: Pick<DomainFacts, 'copyStorage' | 'copied'> = { copyStorage: 'all', copied: ['vda'] };

interface Case {
  readonly domain?: Partial<DomainFacts>;
  readonly host?: Partial<HostFacts>;
  readonly plan?: Partial<PreflightPlan>;
  /** Severity and code of each finding; none: nothing is in the way. */
  readonly finds?: readonly (readonly [Finding['severity'], ErrorCode])[];
  /** What its words must have. */
  readonly words?: RegExp;
}

const disk = (
  attributes: { xml?: string; cache?: string; source?: string; device?: string; type?: string } = {},
) => {
  const { xml = '', cache = 'none', source = `file='/img/a'`, device = 'disk', type = 'file' } = attributes;
  return shape({
    devices: `<disk type='${type}' device='${device}'><driver type='raw' cache='${cache}'/><source ${source}/><target dev='vda'/>${xml}</disk>`,
  });
};

const image = (file: { inode: number; filesystem: string; shared: boolean }) => [{ target: 'vda', file }];
const onNfs = image({ inode: 7, filesystem: 'nfs4', shared: true });
const onDisk = image({ inode: 7, filesystem: 'ext4', shared: false });
const there = (inode = 7) =>
  new Map<string, Place>([['/img/a', { found: 'something', kind: 'file', inode }]]);
const layered = disk({
  xml: `<backingStore type='file'><format type='qcow2'/><source file='/img/base'/>
    <backingStore type='file'><format type='raw'/><source file='/img/deep'/><backingStore/></backingStore></backingStore>`,
});
/** As of a chain that libvirt found by itself. */
const shown = (domain: DomainFacts['shape'], backingNamed: boolean): DomainFacts['shape'] => ({
  ...domain,
  disks: domain.disks.map((each) => ({ ...each, backingNamed })),
});
const layeredOnNfs = onNfs.map((each) => ({ ...each, path: '/img/a' }));
const nowhere = new Map<string, Place>([['/img/a', { found: 'nothing' }]]);
const encrypted = (secret: string) =>
  disk({ xml: `<encryption format='luks'><secret type='passphrase' ${secret}/></encryption>` });
const lun = disk({ type: 'block', source: `dev='/img/a'` });
const volume = disk({ type: 'volume', source: `pool='p' volume='a'` });
const onPool = (found: KnownVolume) => ({ volumes: new Map([['vda', found]]) });
const aFile: KnownVolume = { found: 'volume', type: 'file', path: '/img/a' };
const aDevice: KnownVolume = { found: 'volume', type: 'block', path: '/img/a' };
const onLun = (identity: string) => [{ target: 'vda', path: '/img/a', device: identity }];
const device = (identity?: string) =>
  new Map<string, Place>([
    ['/img/a', { found: 'something', kind: 'block', inode: 1, ...(identity ? { device: identity } : {}) }],
  ]);
const nic = (xml: string) => shape({ devices: `<interface ${xml}</interface>` });
const uefi = shape({ os: `<nvram template='/fw/VARS'>/nvram/a</nvram>` });
const screen = (xml: string) => shape({ devices: `<graphics ${xml}</graphics>` });
const fixed = (listen: string, type = 'vnc') =>
  screen(
    `type='${type}' port='5901' autoport='no' listen='${listen}'><listen type='address' address='${listen}'/>`,
  );
const listening = (address: string, changes: Partial<HostListening> = {}) => ({
  listening: {
    addresses: new Set(['10.0.0.2']),
    anyAddress: false,
    taken: [{ address, port: 5901 }],
    ...changes,
  },
});
const twin = (uuid: string, source: string) => ({
  neighbours: [
    {
      name: 'twin',
      uuid,
      interfaces: nic(`type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='${source}'/>`)
        .interfaces,
    },
  ],
});
const huge = (page: string) =>
  shape({ more: `<memoryBacking><hugepages>${page}</hugepages></memoryBacking>` });

const source: Record<string, Case> = {
  'a plain domain': {},
  'a host device': {
    domain: {
      shape: shape({
        devices: `<hostdev type='pci'><source><address bus='0x06' slot='0x12' function='0x5'/></source></hostdev>`,
      }),
    },
    finds: [['refusal', 'E_DEVICE_BOUND']],
    words: /host device \(pci\): 0000:06:12\.5/,
  },
  'a failover pair': {
    domain: { shape: nic(`type='hostdev'><mac address='52:54:00:00:00:01'/><teaming type='transient'/>`) },
    finds: [['warning', 'E_DEVICE_BOUND']],
    words: /52:54:00:00:00:01/,
  },
  snapshots: {
    domain: { snapshots: true },
    finds: [['refusal', 'E_GUEST_BLOCKED']],
    words: /snapshot-delete/,
  },
  checkpoints: { domain: { checkpoints: true }, finds: [['refusal', 'E_GUEST_BLOCKED']] },
  'a block job': {
    domain: { blockJobs: [{ target: 'vda', type: 'commit' }] },
    finds: [['refusal', 'E_GUEST_BUSY']],
    words: /vda \(commit\).*blockjob web vda --abort/,
  },
  'a disk whose writes are dropped at the end': {
    domain: { ...copied, shape: disk({ xml: '<transient/>' }), images: onDisk },
    finds: [['refusal', 'E_DEVICE_BOUND']],
    words: /vda is transient/,
  },
  "the host's own CD drive": {
    domain: { shape: disk({ device: 'cdrom', type: 'block', source: `dev='/dev/sr0'` }) },
    finds: [['refusal', 'E_DEVICE_BOUND']],
    words: /change-media web vda --eject/,
  },
  'an NVMe disk of the host': {
    domain: { shape: disk({ type: 'nvme' }) },
    finds: [['refusal', 'E_DEVICE_BOUND']],
  },
  'a disk on shared storage': { domain: { shape: disk(), images: onNfs } },
  'a disk on a local file system': {
    domain: { shape: disk(), images: onDisk },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /ext4.*--copy-storage all/,
  },
  'a volume on a local file system': {
    domain: { shape: volume, images: onDisk.map((each) => ({ ...each, path: '/pool/a' })) },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /vda \(\/pool\/a\) is on a local file system \(ext4\)/,
  },
  'a volume on a network file system': { domain: { shape: volume, images: onNfs } },
  'a local disk that is copied': { domain: { ...copied, shape: disk(), images: onDisk } },
  'a local disk that several guests share': {
    domain: { copyStorage: 'all', shape: disk({ xml: '<shareable/>' }), images: onDisk },
    finds: [['refusal', 'E_DISK_UNSAFE']],
  },
  'a local disk that nobody writes': { domain: { shape: disk({ xml: '<readonly/>' }), images: onDisk } },
};

const dest: Record<string, Case> = {
  'a plain domain': {},
  'the very same host': {
    host: { host: domainFacts().host },
    finds: [
      ['refusal', 'E_NAME_TAKEN'],
      ['refusal', 'E_NAME_TAKEN'],
    ],
  },
  'a name with a path in it': {
    domain: { shape: { ...shape(), name: '../../etc/web' } },
    finds: [['refusal', 'E_REFUSED']],
    words: /"\.\.\/\.\.\/etc\/web".*--dest-guest/,
  },
  'a name of blanks': { domain: { shape: { ...shape(), name: ' ' } }, finds: [['refusal', 'E_REFUSED']] },
  'a name that only looks odd': { domain: { shape: { ...shape(), name: '.. ü & <b>' } } },
  'a name that is taken': {
    host: { domains: [{ name: 'web', uuid: OTHER_UUID, state: 'inactive' }] },
    finds: [['refusal', 'E_NAME_TAKEN']],
    words: new RegExp(`${OTHER_UUID}.*--dest-guest libvirt:NAME`),
  },
  'a UUID that is taken': {
    host: { domains: [{ name: 'other', uuid: UUID, state: 'inactive' }] },
    finds: [['refusal', 'E_NAME_TAKEN']],
    words: /named other/,
  },
  'the guest that runs there already': {
    host: { domains: [{ name: 'web', uuid: UUID, state: 'active' }] },
    finds: [['refusal', 'E_NAME_TAKEN']],
    words: /runs on host-b/,
  },
  'the guest that another migration brings in': {
    host: { domains: [{ name: 'web', uuid: UUID, state: 'coming-in' }] },
    finds: [['refusal', 'E_NAME_TAKEN']],
    words: /into host-b has not ended.*domjobabort/,
  },
  'a definition that was left there': {
    host: { domains: [{ name: 'web', uuid: UUID, state: 'inactive' }] },
    finds: [['warning', 'E_NAME_TAKEN']],
  },
  'an older QEMU': {
    host: { versions: { libvirt: 9_000_000, hypervisor: 6_002_000 } },
    finds: [['warning', 'E_HYPERVISOR_OLDER']],
    words: /6\.2\.0, not 7\.2\.22/,
  },
  'another bug fix of the same release': {
    host: { versions: { libvirt: 9_000_000, hypervisor: 7_002_001 } },
  },
  'a libvirt from before UNIX sockets': {
    domain: { versions: { libvirt: 6_000_000, hypervisor: 7_002_022 } },
    finds: [['refusal', 'E_HYPERVISOR_OLDER']],
    words: /host-a/,
  },
  'a machine type that is not there': {
    host: {
      machine: {
        supported: false,
        why: 'not supported by emulator',
        offered: ['pc-q35-6.2', 'pc-i440fx-7.2', 'pc-q35-7.1'],
      },
    },
    finds: [['refusal', 'E_MACHINE_UNKNOWN']],
    words: /pc-q35-7\.2.*It has pc-q35-7\.1, pc-q35-6\.2\./,
  },
  'more vCPUs than there can be': {
    host: { machine: { supported: true, maxVcpus: 1 } },
    finds: [['refusal', 'E_MACHINE_UNKNOWN']],
  },
  'an emulator that the destination does not know': {
    host: { emulators: ['/usr/libexec/qemu-kvm'] },
    finds: [['refusal', 'E_MACHINE_UNKNOWN']],
    words: /libvirt\.emulators/,
  },
  'arguments for QEMU': {
    domain: { shape: { ...shape(), ownArguments: true } },
    finds: [['refusal', 'E_REFUSED']],
  },
  'arguments for QEMU that are allowed': {
    domain: { shape: { ...shape(), ownArguments: true } },
    host: { ownArgumentsAllowed: true },
  },
  'a CPU that is not there': {
    host: { cpu: { verdict: 'incompatible', why: 'Host CPU does not provide required features: avx512f' } },
    finds: [['refusal', 'E_CPU_INCOMPATIBLE']],
    words: /qemu64.*avx512f/,
  },
  'a CPU that neither host has, unchecked': {
    domain: {
      shape: shape({ cpu: `<cpu mode='custom' check='none'><model>EPYC</model></cpu>` }),
      cpu: { verdict: 'incompatible', why: 'x' },
    },
    host: { cpu: { verdict: 'incompatible', why: 'x' } },
    finds: [['warning', 'E_CPU_INCOMPATIBLE']],
  },
  'a CPU that only the source has, unchecked': {
    domain: { shape: shape({ cpu: `<cpu mode='custom' check='none'><model>EPYC</model></cpu>` }) },
    host: { cpu: { verdict: 'incompatible', why: 'x' } },
    finds: [['refusal', 'E_CPU_INCOMPATIBLE']],
  },
  'a CPU that nobody can judge': {
    host: { cpu: { verdict: 'unknown', why: 'x' } },
    finds: [['warning', 'E_CPU_INCOMPATIBLE']],
  },
  "the host's own CPU": {
    domain: { shape: shape({ cpu: `<cpu mode='host-passthrough'/>` }) },
    finds: [['warning', 'E_CPU_INCOMPATIBLE']],
  },
  'pinned to CPUs that are there': {
    domain: { shape: { ...shape(), pinnedCpus: [0, 3], pinnedNodes: [0] } },
  },
  'pinned to what is not there': {
    domain: { shape: { ...shape(), pinnedCpus: [3, 4], pinnedNodes: [1] } },
    finds: [
      ['refusal', 'E_CPU_INCOMPATIBLE'],
      ['refusal', 'E_CPU_INCOMPATIBLE'],
    ],
    words: /CPU 4,/,
  },
  'a bus that QEMU lacks there': {
    domain: { shape: { ...shape(), kinds: [{ device: 'disk', aspect: 'bus', value: 'fdc' }] } },
    finds: [['refusal', 'E_DEVICE_UNKNOWN']],
    words: /disk of the bus "fdc"/,
  },
  'a kind of device that capabilities do not tell of': {
    domain: { shape: { ...shape(), kinds: [{ device: 'video', aspect: 'modelType', value: 'vga' }] } },
  },
  'more memory than the host has': {
    domain: { shape: { ...shape(), memoryBytes: 17 * GiB } },
    finds: [['refusal', 'E_NO_MEMORY']],
    words: /17 GiB.*16 GiB, 8 GiB of them available/,
  },
  'more memory than is available': {
    domain: { shape: { ...shape(), memoryBytes: 9 * GiB } },
    finds: [['warning', 'E_NO_MEMORY']],
  },
  'locked memory that is not available': {
    domain: { shape: { ...shape(), memoryBytes: 9 * GiB, memoryLocked: true } },
    finds: [['refusal', 'E_NO_MEMORY']],
  },
  'huge pages that are free': { domain: { shape: huge('') } },
  'too few huge pages': {
    domain: { shape: huge('') },
    host: { pages: [{ pageBytes: 2 * MiB, free: 511 }] },
    finds: [['refusal', 'E_NO_MEMORY']],
    words: /needs 512 huge pages of 2 MiB.*511 free.*hugepages-2048kB/,
  },
  'huge pages of a size that is not there': {
    domain: { shape: huge(`<page size='1' unit='G'/>`) },
    finds: [['refusal', 'E_NO_MEMORY']],
    words: /no pages of this size/,
  },
  'huge pages where there are none': {
    domain: { shape: huge('') },
    host: { defaultHugePageBytes: undefined },
    finds: [['refusal', 'E_NO_MEMORY']],
  },
  'no userfaultfd, in pre-copy': { host: { userfaultfd: { available: false, why: 'x' } } },
  'no userfaultfd, in post-copy': {
    host: { userfaultfd: { available: false, why: 'x' } },
    plan: { postcopy: true },
    finds: [['refusal', 'E_NO_USERFAULTFD']],
  },
  'memory in a file, in post-copy': {
    domain: { shape: { ...shape(), memoryInFiles: true } },
    plan: { postcopy: true },
    finds: [['refusal', 'E_NO_USERFAULTFD']],
  },
  'pages of a gigabyte, in post-copy': {
    domain: { shape: huge(`<page size='1' unit='G'/>`) },
    host: { pages: [{ pageBytes: GiB, free: 1 }] },
    plan: { postcopy: true },
    finds: [['refusal', 'E_NO_USERFAULTFD']],
  },
  'a post-copy that could not be resumed': {
    host: { versions: { libvirt: 8_000_000, hypervisor: 7_002_022 } },
    plan: { postcopy: true },
    finds: [
      ['warning', 'E_HYPERVISOR_OLDER'],
      ['warning', 'E_HYPERVISOR_OLDER'],
    ],
  },
  'the same disk on both hosts': { domain: { shape: disk(), images: onNfs }, host: { places: there() } },
  'a disk that is not there': {
    domain: { shape: disk(), images: onNfs },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /\/img\/a/,
  },
  'a disk that is not there and is copied': {
    domain: { ...copied, shape: disk(), images: onDisk },
    host: { places: nowhere },
  },
  'a disk on shared storage that is not there, beside one that is copied': {
    domain: { ...copied, copied: ['vdb'], shape: disk(), images: onNfs },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /name another place with --dest-xml, to which it is copied/,
  },
  'a disk that nobody may look at': {
    domain: { shape: disk(), images: onNfs },
    host: { places: new Map([['/img/a', { found: 'unknown', why: 'permission denied' }]]) },
    finds: [['warning', 'E_FILE_MISSING']],
  },
  'another file of the same name': {
    domain: { shape: disk(), images: onDisk },
    host: { places: there(8) },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /another file/,
  },
  'another file by the numbers of a shared file system': {
    domain: { shape: disk(), images: onNfs },
    host: { places: there(8) },
    finds: [['warning', 'E_DISK_UNSAFE']],
  },
  'a backing image that is not there': {
    domain: { shape: layered, images: layeredOnNfs },
    host: { places: new Map([...there(), ['/img/base', { found: 'nothing' }]]) },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /vda lies on \/img\/base, which host-b does not have/,
  },
  'a backing image, far below, that nobody may look at': {
    domain: { shape: layered, images: layeredOnNfs },
    host: { places: new Map([...there(), ['/img/deep', { found: 'unknown', why: 'permission denied' }]]) },
    finds: [['warning', 'E_FILE_MISSING']],
    words: /\/img\/deep/,
  },
  'backing images that are there': {
    domain: { shape: layered, images: layeredOnNfs },
    host: { places: new Map([...there(), ['/img/base', there().get('/img/a')!]]) },
  },
  'a backing image of an image that is elsewhere there': {
    domain: { shape: layered, images: [{ ...layeredOnNfs[0]!, path: '/mnt/a' }] },
    host: { places: new Map([...there(), ['/img/base', { found: 'nothing' }]]) },
  },
  "a backing image that the domain's XML names, of a disk that is copied whole": {
    domain: { ...copied, shape: layered, images: layeredOnNfs },
    host: { places: new Map([['/img/base', { found: 'nothing' }]]) },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /vda lies on \/img\/base.*blockpull/,
  },
  'a backing image, below the first, of a disk that is copied above them': {
    domain: { ...copied, copyStorage: 'inc', shape: layered, images: onDisk },
    host: {
      places: new Map([
        ['/img/base', { found: 'nothing' }],
        ['/img/deep', { found: 'nothing' }],
      ]),
    },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /vda lies on \/img\/deep/,
  },
  'a backing image that only the image names, of a disk that is copied whole': {
    domain: { ...copied, shape: shown(layered, false), images: onDisk },
    host: { places: new Map([['/img/base', { found: 'nothing' }]]) },
  },
  'a shared disk that is not there, beside one that is copied': {
    domain: { ...copied, copied: ['vdb'], shape: disk({ xml: '<shareable/>' }), images: onNfs },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /at the same path\.$/,
  },
  'a medium that is not there': {
    domain: { shape: disk({ device: 'cdrom' }) },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /eject it/,
  },
  'a medium that libvirt can do without': {
    domain: { shape: disk({ device: 'cdrom', source: `file='/img/a' startupPolicy='optional'` }) },
    host: { places: nowhere },
    finds: [['warning', 'E_FILE_MISSING']],
  },
  'a copy to a block device that is not there': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /no block device/,
  },
  'a copy to a file where a block device should be': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: there() },
    finds: [['refusal', 'E_FILE_MISSING']],
  },
  'a copy to another block device': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: device('wwid:naa.2') },
  },
  'a copy to a block device that is smaller': {
    domain: { ...copied, shape: lun, images: [{ ...onLun('wwid:naa.1')[0]!, virtualBytes: 2 * MiB }] },
    host: {
      places: new Map([
        ['/img/a', { found: 'something', kind: 'block', inode: 1, device: 'wwid:naa.2', bytes: MiB }],
      ]),
    },
    finds: [['refusal', 'E_NO_SPACE']],
    words: /2097152 bytes, and \/img\/a on host-b, .* 1048576/,
  },
  'a copy to the very same block device': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: device('wwid:naa.1') },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /vda.*the same device on both hosts \(wwid:naa\.1\)/,
  },
  'a copy between block devices of which one has nothing to know it by': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: device() },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /cannot be told/,
  },
  'a copy from one path to a LUN to a multipath device': {
    domain: { ...copied, shape: lun, images: onLun('wwid:naa.1') },
    host: { places: device('dm:mpath-31') },
    finds: [['refusal', 'E_DISK_UNSAFE']],
  },
  'a copy to a pool that has no such volume': {
    domain: { ...copied, shape: volume, images: onDisk },
    host: onPool({ found: 'nothing' }),
  },
  'a copy to a volume that is there already': {
    domain: { ...copied, shape: volume, images: onDisk },
    host: onPool(aFile),
    finds: [['refusal', 'E_FILE_EXISTS']],
    words: /\/img\/a.*vol-delete/,
  },
  'a copy to another logical volume': {
    domain: { ...copied, shape: volume, images: onLun('dm:LVM-1') },
    host: { ...onPool(aDevice), places: device('dm:LVM-2') },
  },
  'a copy of a volume in a volume group that the hosts share': {
    domain: { ...copied, shape: volume, images: onLun('dm:LVM-1') },
    host: { ...onPool(aDevice), places: device('dm:LVM-1') },
    finds: [['refusal', 'E_DISK_UNSAFE']],
  },
  'a copy of a volume of which nothing is known': {
    domain: { ...copied, shape: volume, images: [{ target: 'vda' }] },
    host: { ...onPool(aDevice), places: device('dm:LVM-1') },
    finds: [['refusal', 'E_DISK_UNSAFE']],
    words: /cannot be told/,
  },
  'a volume of a pool that is not there': {
    domain: { shape: volume, images: onNfs },
    host: onPool({ found: 'no-pool' }),
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /vda.*pool "p", which host-b does not have.*pool-define/,
  },
  'a copy to a pool that is not active': {
    domain: { ...copied, shape: volume, images: onDisk },
    host: onPool({ found: 'inactive-pool' }),
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /not active on host-b.*pool-start p/,
  },
  'a volume that its pool does not have there': {
    domain: { shape: volume, images: onNfs },
    host: onPool({ found: 'nothing' }),
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /no volume "a".*pool-refresh p/,
  },
  'a medium that is a volume, which libvirt can do without': {
    domain: {
      shape: disk({
        device: 'cdrom',
        type: 'volume',
        source: `pool='p' volume='a' startupPolicy='optional'`,
      }),
    },
    host: onPool({ found: 'nothing' }),
    finds: [['warning', 'E_FILE_MISSING']],
  },
  'a volume that both hosts have': { domain: { shape: volume, images: onNfs }, host: onPool(aFile) },
  'a volume where libvirt knows nothing of pools': { domain: { shape: volume, images: onNfs } },
  'a secret that is not there': {
    domain: { shape: encrypted(`uuid='${UUID}'`), images: onNfs },
    host: { places: there() },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: new RegExp(`disk vda needs the secret ${UUID}.*secret-define`),
  },
  'secrets by UUID and by usage': {
    domain: {
      shape: {
        ...shape(),
        secrets: [...encrypted(`uuid='${OTHER_UUID}'`).secrets, ...encrypted(`usage='backup'`).secrets],
      },
    },
  },
  'a secret of another usage': {
    domain: { shape: { ...shape(), secrets: encrypted(`usage='web'`).secrets } },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /"web"/,
  },
  'secrets of which libvirt does not tell': {
    domain: { shape: { ...shape(), secrets: encrypted(`usage='web'`).secrets } },
    host: { secrets: undefined },
  },
  'a cache that nobody flushes': {
    domain: { shape: disk({ cache: 'unsafe' }), images: onNfs },
    host: { places: there() },
    finds: [['refusal', 'E_DISK_UNSAFE']],
  },
  'a write-back cache': {
    domain: { shape: disk({ cache: 'writeback' }), images: onNfs },
    host: { places: there() },
  },
  'a write-back cache of a QEMU that keeps it': {
    domain: {
      shape: disk({ cache: 'writeback' }),
      images: onNfs,
      versions: { libvirt: 9_000_000, hypervisor: 3_001_000 },
    },
    host: { places: there(), versions: { libvirt: 9_000_000, hypervisor: 3_001_000 } },
    finds: [['refusal', 'E_DISK_UNSAFE']],
  },
  'a write-back cache of a network disk': {
    domain: { shape: disk({ type: 'network', cache: 'unsafe', source: `protocol='rbd' name='a/b'` }) },
  },
  'firmware that is not there': {
    domain: { shape: { ...shape(), files: [{ what: 'firmware', path: '/img/a' }] } },
    host: { places: nowhere },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /firmware/,
  },
  'firmware that is there': {
    domain: { shape: { ...shape(), files: [{ what: 'firmware', path: '/img/a' }] } },
    host: { places: there() },
  },
  'an active network': { domain: { shape: nic(`type='network'><source network='default'/>`) } },
  'a network that is not active': {
    domain: { shape: nic(`type='network'><source network='off'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /virsh net-start off/,
  },
  'a network that is not there': {
    domain: { shape: nic(`type='network'><source network='lost'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'a network whose bridge is not there': {
    domain: { shape: nic(`type='network'><source network='stale'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /"stale", whose bridge virbr2 host-b does not have/,
  },
  'a network without a bridge': { domain: { shape: nic(`type='network'><source network='passthrough'/>`) } },
  'a network filter that is not there': {
    domain: { shape: nic(`type='bridge'><source bridge='br0'/><filterref filter='own'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /"own".*nwfilter-define/,
  },
  'a network filter that is there': {
    domain: { shape: nic(`type='bridge'><source bridge='br0'/><filterref filter='clean-traffic'/>`) },
  },
  'a bridge': { domain: { shape: nic(`type='bridge'><source bridge='br0'/>`) } },
  'a missing bridge': {
    domain: { shape: nic(`type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br9'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /52:54:00:00:00:01 is on the bridge br9/,
  },
  'a bridge that is something else': {
    domain: { shape: nic(`type='bridge'><source bridge='eth0'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /no bridge/,
  },
  'a device to be shared': { domain: { shape: nic(`type='direct'><source dev='eth0'/>`) } },
  'a missing device to be shared': {
    domain: { shape: nic(`type='direct'><source dev='eth9'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'interfaces that cannot be listed': {
    domain: { shape: nic(`type='bridge'><source bridge='br9'/>`) },
    host: { interfaces: undefined },
    finds: [['warning', 'E_NO_NETWORK']],
  },
  'a tap that the operator makes': {
    domain: { shape: nic(`type='ethernet'><target dev='tap9' managed='no'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  "QEMU's own user network": { domain: { shape: nic(`type='user'>`) }, finds: [['warning', 'E_NO_NETWORK']] },
  'firmware variables that come from a template': {
    domain: { shape: uefi },
    host: { places: new Map<string, Place>([['/nvram/a', { found: 'nothing' }]]) },
  },
  'firmware variables that are there, without their template': {
    domain: { shape: uefi },
    host: { places: new Map<string, Place>([['/fw/VARS', { found: 'nothing' }]]) },
  },
  'firmware variables without anything to make them of': {
    domain: { shape: uefi },
    host: {
      places: new Map<string, Place>([
        ['/nvram/a', { found: 'nothing' }],
        ['/fw/VARS', { found: 'nothing' }],
      ]),
    },
    finds: [['refusal', 'E_FILE_MISSING']],
    words: /neither .*\/nvram\/a, nor \/fw\/VARS/,
  },
  'a MAC address that another guest has on the same bridge': {
    domain: { shape: nic(`type='network'><mac address='52:54:00:00:00:01'/><source network='default'/>`) },
    host: twin(OTHER_UUID, 'br0'),
    finds: [['warning', 'E_NO_NETWORK']],
    words: /52:54:00:00:00:01 comes to br0 on host-b, where the domain twin/,
  },
  'a MAC address that another guest has elsewhere': {
    domain: { shape: nic(`type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>`) },
    host: twin(OTHER_UUID, 'br1'),
  },
  'a MAC address of its own that is there already': {
    domain: { shape: nic(`type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>`) },
    host: twin(UUID, 'br0'),
  },
  'graphics on an address that is not there': {
    domain: { shape: fixed('10.0.0.1') },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /\(vnc\) listen on 10\.0\.0\.1, which is no address of host-b.*--dest-xml/,
  },
  'graphics on an IPv6 address that is not there': {
    domain: { shape: fixed('fd00::1', 'spice') },
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'graphics on an address that is there, however it is written': {
    domain: { shape: fixed('FD00:0:0::0002') },
  },
  'graphics on an address of which the host need not know': {
    domain: { shape: fixed('10.0.0.1') },
    host: listening('10.0.0.2', { anyAddress: true }),
  },
  'graphics on an address, where nobody can tell': {
    domain: { shape: fixed('10.0.0.1') },
    host: { listening: undefined },
  },
  'graphics on all addresses, on the loopback, and on a name': {
    domain: {
      shape: {
        ...shape(),
        graphics: ['0.0.0.0', '::', '127.0.0.5', 'console.example'].flatMap((at) => fixed(at).graphics),
      },
    },
  },
  'graphics on a network that is not active': {
    domain: { shape: screen(`type='spice' autoport='yes'><listen type='network' network='off'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /"off", which is not active on host-b.*net-start off/,
  },
  'graphics on a network that is not there': {
    domain: { shape: screen(`type='vnc'><listen type='network' network='lost'/>`) },
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /"lost", which host-b does not have/,
  },
  'a fixed port that is taken': {
    domain: { shape: fixed('10.0.0.2') },
    host: listening('10.0.0.2'),
    finds: [['refusal', 'E_NO_NETWORK']],
    words: /fixed port 5901.*autoport="yes"/,
  },
  'a fixed port that is taken on all addresses': {
    domain: { shape: fixed('127.0.0.1') },
    host: listening('0.0.0.0'),
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'a fixed port on all addresses that is taken on one': {
    domain: { shape: fixed('0.0.0.0') },
    host: listening('10.0.0.2'),
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'a fixed port that is taken on another address': {
    domain: { shape: fixed('127.0.0.1') },
    host: listening('10.0.0.2'),
  },
  'a port that libvirt chooses': {
    domain: { shape: screen(`type='vnc' port='5901' autoport='yes' listen='0.0.0.0'>`) },
    host: listening('0.0.0.0'),
  },
  'a fixed port for web sockets': {
    domain: { shape: screen(`type='vnc' port='-1' autoport='yes' websocket='5901'>`) },
    host: listening('127.0.0.1'),
    finds: [['refusal', 'E_NO_NETWORK']],
  },
  'a socket in the file system': {
    domain: { shape: screen(`type='vnc' port='5901'><listen type='socket' socket='/run/a'/>`) },
    host: listening('0.0.0.0'),
  },
  'clocks that agree': { host: { wallClockMs: 1_004_900 } },
  'a clock ahead by more than the way takes': {
    host: { wallClockMs: 1_005_100 },
    finds: [['warning', 'E_CLOCK_APART']],
    words: /5\.1 s ahead of/,
  },
  'clocks that differ': {
    host: { wallClockMs: 997_500 },
    finds: [['warning', 'E_CLOCK_APART']],
    words: /2\.5 s behind/,
  },
};

function check(found: readonly Finding[], { finds = [], words = /^/ }: Case): void {
  expect(found.map(({ severity, code }) => [severity, code])).toEqual(finds);
  expect(found.map(({ message, remedy }) => `${message} ${remedy}`).join('\n')).toMatch(words);
  for (const { message, remedy } of found) {
    expect(message).not.toMatch(/\.$/);
    expect(remedy).toMatch(/^[A-Zl].*[.)]$/);
  }
}

describe('what the source finds by itself', () => {
  test.each(Object.entries(source))('%s', (_, each) => {
    check(sourceFindings(domainFacts(each.domain), { ...PLAIN, ...each.plan }), each);
  });
});

describe('what the destination finds', () => {
  test.each(Object.entries(dest))('%s', (_, each) => {
    check(destFindings(domainFacts(each.domain), hostFacts(each.host), { ...PLAIN, ...each.plan }), each);
  });
});

test('all findings come at once, refusals before warnings', () => {
  const found = destFindings(
    domainFacts({ shape: nic(`type='bridge'><source bridge='br9'/>`) }),
    hostFacts({
      wallClockMs: 0,
      cpu: { verdict: 'incompatible', why: 'x' },
      domains: [{ name: 'web', uuid: OTHER_UUID, state: 'active' }],
    }),
    PLAIN,
  );
  expect(found.map(({ code }) => code)).toEqual([
    'E_NAME_TAKEN',
    'E_CPU_INCOMPATIBLE',
    'E_NO_NETWORK',
    'E_CLOCK_APART',
  ]);
  expect(refusals(found).map(({ code }) => code)).toEqual([
    'E_NAME_TAKEN',
    'E_CPU_INCOMPATIBLE',
    'E_NO_NETWORK',
  ]);
  expect(notes(found)).toEqual([
    expect.stringMatching(/^The clock of host-b is 1000\.0 s behind the source's\. Sync/),
  ]);
});

test('in pre-copy nothing is said of post-copy, whatever the domain and the host', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom(2 * MiB, GiB),
      fc.integer({ min: 6_008_000, max: 11_000_000 }),
      (memoryInFiles, available, pageBytes, libvirt) => {
        const domain = domainFacts({
          shape: { ...shape(), memoryInFiles, hugePages: [{ pageBytes, bytes: GiB }] },
        });
        const host = hostFacts({
          versions: { libvirt, hypervisor: 7_002_022 },
          pages: [
            { pageBytes: 2 * MiB, free: 512 },
            { pageBytes: GiB, free: 1 },
          ],
          userfaultfd: available ? { available } : { available, why: 'x' },
        });
        const codes = (plan: PreflightPlan) => destFindings(domain, host, plan).map(({ code }) => code);
        expect(codes(PLAIN)).not.toContain('E_NO_USERFAULTFD');
        expect(codes({ ...PLAIN, postcopy: true }).includes('E_NO_USERFAULTFD')).toBe(
          memoryInFiles || !available || pageBytes > 2 * MiB,
        );
      },
    ),
  );
});

test('memory is refused only beyond what the host has, and told beyond what is available', () => {
  fc.assert(
    fc.property(
      fc.nat(100),
      fc.nat(100),
      fc.nat(100),
      fc.boolean(),
      (needed, available, taken, memoryLocked) => {
        const domain = domainFacts({ shape: { ...shape(), memoryBytes: needed * GiB, memoryLocked } });
        const memory = { totalBytes: (available + taken) * GiB, availableBytes: available * GiB };
        const severities = destFindings(domain, hostFacts({ memory }), PLAIN).map(({ severity }) => severity);
        const fits = needed <= available;
        const never = needed > available + taken || (memoryLocked && !fits);
        expect(severities).toEqual(fits ? [] : [never ? 'refusal' : 'warning']);
      },
    ),
  );
});

test('what crosses the wire is checked, and survives it', () => {
  const facts = domainFacts({ shape: disk(), images: onNfs });
  expect(parseDomainFacts(JSON.parse(JSON.stringify(facts)))).toEqual(facts);
  for (const wrong of [
    undefined,
    {},
    { ...facts, shape: { ...facts.shape, uuid: '../../etc' } },
    { ...facts, shape: { ...facts.shape, memoryBytes: -1 } },
    { ...facts, shape: { ...facts.shape, emulator: 'qemu' } },
    { ...facts, hostCpuXml: 'x'.repeat(60_001) },
  ]) {
    expect(domainFactsSchema.safeParse(wrong).success).toBe(false);
    expect(() => parseDomainFacts(wrong)).toThrow(expect.objectContaining({ code: 'E_PROTOCOL' }));
  }
});
