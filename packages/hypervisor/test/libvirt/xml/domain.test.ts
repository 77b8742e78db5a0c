import { comparableCpu, idsOf, readDomain } from '@vmferry/hypervisor/libvirt/xml/domain';
import { domainShapeSchema } from '@vmferry/hypervisor/libvirt/xml/domain-shape';
import { XmlError } from '@vmferry/hypervisor/libvirt/xml/tree';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { domainXml, GiB, MiB, shape, UUID } from '../support/domain.ts';

test('what a domain is', () => {
  const read = shape();
  expect(read).toMatchObject({
    name: 'web',
    uuid: UUID,
    virtType: 'kvm',
    architecture: 'x86_64',
    machine: 'pc-q35-7.2',
    emulator: '/usr/bin/qemu-system-x86_64',
    vcpus: 2,
    memoryBytes: GiB,
    cpu: { mode: 'custom', model: 'qemu64', check: 'full' },
    disks: [],
    ownArguments: false,
  });
  expect(domainShapeSchema.parse(read)).toEqual(read);
});

test('where the firmware keeps its variables', () => {
  const of = (nvram: string) => shape({ os: nvram }).nvram;
  expect(of('')).toBeUndefined();
  expect(of(`<nvram template='/fw/VARS.fd'>/nvram/web.fd</nvram>`)).toEqual({
    path: '/nvram/web.fd',
    template: '/fw/VARS.fd',
  });
  expect(of(`<nvram type='file'><source file='/nvram/web.fd'/></nvram>`)).toEqual({ path: '/nvram/web.fd' });
  expect(of(`<nvram type='block'><source dev='/dev/vg/nvram'/></nvram>`)).toBeUndefined();
});

test('only what CPUs are compared by is kept of a CPU', () => {
  const xml = `<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
    <topology sockets='1' cores='2' threads='1'/><feature policy='require' name='x2apic'/>
    <numa><cell id='0' cpus='0-1' memory='1048576' unit='KiB'/></numa></cpu>`;
  expect(comparableCpu(xml)).toBe(
    `<cpu mode="custom" match="exact"><model fallback="forbid">EPYC</model><vendor>AMD</vendor><feature policy="require" name="x2apic"/></cpu>`,
  );
  expect(() => comparableCpu('<domain/>')).toThrow(XmlError);
});

test('disks with their images, what lies below them, and how they are used', () => {
  const { disks } = shape({
    devices: `
      <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/img/top.qcow2'/>
        <backingStore type='file'><format type='qcow2'/><source file='/img/mid.qcow2'/>
          <backingStore type='block'><format type='raw'/><source dev='/dev/vg/base'/><backingStore/></backingStore>
        </backingStore><target dev='vda' bus='virtio'/></disk>
      <disk type='block' device='lun'><driver name='qemu' type='raw' cache='default'/><source dev='/dev/sdb'/><target dev='sdb'/><shareable/></disk>
      <disk type='network'><driver type='raw'/><source protocol='rbd' name='pool/image'><host name='a'/></source><target dev='vdc'/></disk>
      <disk type='volume'><source pool='p' volume='v'/><target dev='vdd'/></disk>
      <disk type='nvme'><source type='pci' namespace='1'/><target dev='vde'/></disk>
      <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
      <disk type='file' device='floppy'><source file='/img/f' startupPolicy='optional'/><target dev='fda'/><readonly/></disk>`,
  });
  expect(disks.map(({ target, source }) => [target, source])).toEqual([
    ['vda', { type: 'file', path: '/img/top.qcow2' }],
    ['sdb', { type: 'block', path: '/dev/sdb' }],
    ['vdc', { type: 'network', protocol: 'rbd', name: 'pool/image' }],
    ['vdd', { type: 'volume', pool: 'p', volume: 'v' }],
    ['vde', { type: 'other', kind: 'nvme' }],
    ['sda', { type: 'none' }],
    ['fda', { type: 'file', path: '/img/f' }],
  ]);
  expect(disks[0]).toMatchObject({
    format: 'qcow2',
    cache: 'none',
    readonly: false,
    backing: [
      { source: { type: 'file', path: '/img/mid.qcow2' }, format: 'qcow2' },
      { source: { type: 'block', path: '/dev/vg/base' }, format: 'raw' },
    ],
  });
  expect(disks[1]).toMatchObject({ shareable: true, cache: '' });
  expect(disks[5]).toMatchObject({ readonly: true });
  expect(disks[6]).toMatchObject({ readonly: true, optional: true });
});

test('interfaces with what they are on', () => {
  const { interfaces } = shape({
    devices: `
      <interface type='network'><mac address='52:54:00:AA:00:01'/><source network='default' portid='x' bridge='virbr0'/></interface>
      <interface type='bridge'><source bridge='br0'/></interface>
      <interface type='direct'><source dev='eth0' mode='bridge'/></interface>
      <interface type='ethernet'><target dev='tap7' managed='no'/></interface>
      <interface type='ethernet'><target dev='vnet3'/></interface>
      <interface type='hostdev'><mac address='52:54:00:aa:00:02'/><teaming type='transient' persistent='ua-1'/>
        <source><address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source></interface>`,
  });
  expect(interfaces.map(({ type, source, tap, transient }) => [type, source, tap, transient])).toEqual([
    ['network', 'default', '', false],
    ['bridge', 'br0', '', false],
    ['direct', 'eth0', '', false],
    ['ethernet', '', 'tap7', false],
    ['ethernet', '', '', false],
    ['hostdev', '', '', true],
  ]);
  expect(interfaces[0]?.mac).toBe('52:54:00:aa:00:01');
});

test('devices that are bound to the host are told by what they are and which', () => {
  const { bound } = shape({
    more: `<launchSecurity type='sev'/>`,
    devices: `
      <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev>
      <hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc52b'/></source></hostdev>
      <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>
      <interface type='hostdev'><source><address type='pci' domain='0' bus='0x00' slot='0x07' function='0x0'/></source></interface>
      <filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='srv'/></filesystem>
      <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
      <input type='evdev'><source dev='/dev/input/event1'/></input>
      <shmem name='my'><model type='ivshmem-plain'/></shmem>`,
  });
  expect(bound).toEqual([
    { what: 'host device (pci)', which: '0000:06:12.5' },
    { what: 'host device (usb)', which: '046d:c52b' },
    { what: 'mediated device', which: 'c2177883-f1bb-47f0-914d-32a22e3a8804' },
    { what: 'network card of the host', which: '0:00:07.0' },
    { what: 'shared folder', which: 'srv (/srv)' },
    { what: 'TPM of the host', which: '/dev/tpm0' },
    { what: 'input device of the host', which: '/dev/input/event1' },
    { what: 'shared memory', which: 'my' },
    { what: 'memory that this host encrypts', which: 'sev' },
  ]);
});

test('huge pages by their size and how much of the memory is of them', () => {
  const numa = `<cpu mode='host-model'><numa><cell id='0' memory='1' unit='GiB'/><cell id='1' memory='3' unit='GiB'/></numa></cpu>`;
  const of = (pages: string) =>
    shape({
      cpu: numa,
      memory: `<memory unit='GiB'>4</memory>`,
      more: `<memoryBacking><hugepages>${pages}</hugepages></memoryBacking>`,
    }).hugePages;
  expect(of('')).toEqual([{ pageBytes: 0, bytes: 4 * GiB }]);
  expect(of(`<page size='1' unit='G'/>`)).toEqual([{ pageBytes: GiB, bytes: 4 * GiB }]);
  expect(of(`<page size='2048' unit='KiB'/><page size='1' unit='G' nodeset='1'/>`)).toEqual([
    { pageBytes: GiB, bytes: 3 * GiB },
    { pageBytes: 2 * MiB, bytes: GiB },
  ]);
  const backing = (xml: string) => shape({ more: `<memoryBacking>${xml}</memoryBacking>` });
  expect(backing(`<source type='file'/><locked/>`)).toMatchObject({
    memoryInFiles: true,
    memoryLocked: true,
  });
  expect(backing(`<source type='memfd'/>`)).toMatchObject({ memoryInFiles: false, memoryLocked: false });
});

test('CPUs and nodes that it is pinned to', () => {
  const read = shape({
    more: `<cputune><vcpupin vcpu='0' cpuset='1-3,^2'/><emulatorpin cpuset='7'/></cputune>
      <numatune><memory mode='strict' nodeset='0-1'/><memnode cellid='0' mode='preferred' nodeset='5'/></numatune>`,
  });
  expect(read).toMatchObject({ pinnedCpus: [1, 3, 7], pinnedNodes: [0, 1] });
});

test('sockets that QEMU connects to when it starts, and not those on which it listens', () => {
  const nic = (mode: string) =>
    `<interface type='vhostuser'><source type='unix' path='/run/${mode}.sock' mode='${mode}'/></interface>`;
  const port = (name: string, mode: string, more = '') =>
    `<${name} type='unix'><source mode='${mode}' path='/run/${mode}${more && '-again'}'>${more}</source></${name}>`;
  const ports = [
    port('serial', 'connect'),
    port('console', 'connect'),
    port('channel', 'bind'),
    port('channel', 'connect', `<reconnect enabled='yes' timeout='1'/>`),
  ];
  expect(shape({ devices: nic('client') + nic('server') + ports.join('') }).files).toEqual([
    { what: 'socket behind a serial', path: '/run/connect' },
    { what: 'vhost-user socket', path: '/run/client.sock' },
  ]);
});

test('secrets of disks and of a TPM, wherever a disk has them', () => {
  const read = shape({
    devices: `<disk type='file'><source file='/a'><encryption format='luks'><secret type='passphrase' uuid='AA'/></encryption></source><target dev='vda'/></disk>
      <disk type='network'><source protocol='rbd' name='p/i'/><auth username='u'><secret type='ceph' usage='pool'/></auth><target dev='vdb'/></disk>
      <disk type='file'><source file='/b'/><target dev='vdc'/><transient/></disk>
      <tpm model='tpm-crb'><backend type='emulator'><encryption secret='bb'/></backend></tpm>`,
  });
  expect(read.secrets).toEqual([
    { what: 'disk vda', uuid: 'aa' },
    { what: 'disk vdb', usage: 'pool' },
    { what: 'the TPM', uuid: 'bb' },
  ]);
  expect(read.disks.map(({ encryption, transient }) => [encryption, transient])).toEqual([
    ['luks', false],
    ['', false],
    ['', true],
  ]);
});

test('arguments for QEMU of its own are seen, whatever their prefix', () => {
  const attributes = `xmlns:x='http://libvirt.org/schemas/domain/qemu/1.0'`;
  expect(shape({ attributes, more: `<x:commandline><x:arg value='-s'/></x:commandline>` }).ownArguments).toBe(
    true,
  );
  expect(shape({ attributes, more: `<x:override/>` }).ownArguments).toBe(true);
  expect(shape({ attributes }).ownArguments).toBe(false);
});

test.each([
  ['no domain', '<network/>'],
  ['no name', domainXml().replace('<name>web</name>', '')],
  ['no architecture', domainXml().replace(`arch='x86_64'`, '')],
  ['memory in no unit', domainXml({ memory: `<memory unit='constructor'>1</memory>` })],
  ['memory that is no number', domainXml({ memory: '<memory>1e9</memory>' })],
  ['more memory than there can be', domainXml({ memory: `<memory unit='TiB'>99999999999</memory>` })],
  ['CPUs that are no list', domainXml({ more: `<cputune><vcpupin cpuset='all'/></cputune>` })],
  [
    'a disk of a kind that there is not',
    domainXml({ devices: `<disk device='tape'><target dev='a'/></disk>` }),
  ],
  ['a disk without a target', domainXml({ devices: `<disk device='disk'/>` })],
])('%s is refused', (_, xml) => {
  expect(() => readDomain(xml)).toThrow(XmlError);
});

test('a list of numbers is read as it was written', () => {
  expect(idsOf('0-3,^2,8')).toEqual([0, 1, 3, 8]);
  expect(idsOf(undefined)).toEqual([]);
  expect(() => idsOf('0-99999')).toThrow(XmlError);
  expect(() => idsOf('1,'.repeat(3000))).toThrow(XmlError);
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(1000), { minLength: 1 }), (ids) => {
      expect(idsOf(ids.join(','))).toEqual([...ids].sort((a, b) => a - b));
    }),
  );
});
