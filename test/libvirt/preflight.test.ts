/** Preflight between two real libvirtds: what is in the way is found, and nothing is touched. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { type DestPolicy, destPreflight } from '@vmferry/hypervisor/libvirt/preflight/dest';
import { type DomainFacts, parseDomainFacts } from '@vmferry/hypervisor/libvirt/preflight/domain-facts';
import type { Finding } from '@vmferry/hypervisor/libvirt/preflight/finding';
import { type DomainWish, gatherDomain } from '@vmferry/hypervisor/libvirt/preflight/gather-domain';
import { sourceFindings } from '@vmferry/hypervisor/libvirt/preflight/preflight';
import { rehearsePreflight } from '@vmferry/hypervisor/libvirt/preflight/rehearse';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { bootSectorDomain } from '../guest/boot-sector-domain.ts';
import { type LibvirtHost, startLibvirtHosts } from '../rig/libvirt.ts';
import { run } from '../rig/process.ts';
import { type TwoHosts, twoHosts } from '../rig/two-hosts.ts';

const UUID = '11111111-4444-4000-8000-000000000001';
const OTHER_UUID = '11111111-4444-4000-8000-000000000002';

let rig: TwoHosts;
let a: LibvirtHost;
let b: LibvirtHost;
let toA: LibvirtConnection;
let toB: LibvirtConnection;

beforeAll(async () => {
  rig = await twoHosts();
  ({ a, b } = await startLibvirtHosts(rig));
  [toA, toB] = await Promise.all([a.connect(), b.connect()]);
});

afterAll(async () => {
  await Promise.all([toA?.close(), toB?.close()]);
  await rig?.close();
});

afterEach(async () => {
  for (const connection of [toA, toB]) {
    for (const domain of await connection.domains()) {
      // A transient one is gone once it is destroyed, and a definition once it is undefined.
      const [active, persistent] = [await domain.isActive(), await domain.isPersistent()];
      if (persistent) await domain.undefine();
      if (active) await domain.destroy();
    }
  }
});

const PLAIN: DomainWish = { copyStorage: 'none' };

interface Asked {
  readonly postcopy?: boolean;
  readonly wish?: DomainWish;
  readonly policy?: Partial<DestPolicy>;
  readonly change?: (facts: DomainFacts) => DomainFacts;
}

const ofHostB = (): DestPolicy => ({
  imageDirectories: [],
  baseImageDirectories: [],
  emulators: [],
  allowQemuArguments: false,
  allowXmlChanges: [],
  hostRoot: `/proc/${b.daemonPid}/root`,
});

/** The whole way: what the source gathers crosses the wire, and the destination judges it. */
async function preflight(
  domain: Domain,
  { postcopy = false, wish = PLAIN, policy, change = (facts) => facts }: Asked = {},
) {
  const gathered = change(await gatherDomain(toA, domain, wish));
  const facts = parseDomainFacts(JSON.parse(JSON.stringify(gathered)));
  const there = await destPreflight(toB, facts, {
    postcopy,
    policy: { ...ofHostB(), ...policy },
  });
  const here = sourceFindings(facts, { postcopy });
  return { ...there, facts, findings: [...here, ...there.findings] };
}

const named = (path: string) => [{ path, here: path }];

const told = (findings: readonly Finding[]) => findings.map(({ severity, code }) => `${severity} ${code}`);

async function guestXml(change: (xml: string) => string = (xml) => xml, devices = ''): Promise<string> {
  return change(await bootSectorDomain({ name: 'web', uuid: UUID, devices }));
}

async function everything(): Promise<unknown> {
  const of = async (connection: LibvirtConnection) =>
    Promise.all((await connection.domains()).map(async (each) => [await each.xml(), await each.state()]));
  return [await of(toA), await of(toB)];
}

test('a running domain that can move is let go, by pre-copy and by post-copy', async () => {
  const domain = await toA.createTransient(await guestXml());
  const before = await everything();
  const { facts, findings } = await preflight(domain, { postcopy: true });
  expect(findings).toEqual([]);
  expect(facts).toMatchObject({ cpu: { verdict: 'usable' }, host: { name: 'host-a', uuid: a.hostUuid } });
  expect(await everything()).toEqual(before);
});

test('a host device, a wrong CPU, a missing bridge and a name that is taken are all refused at once', async () => {
  await toB.define((await guestXml()).replace(UUID, OTHER_UUID));
  const domain = await toA.define(
    await guestXml(
      (xml) =>
        xml.replace(
          /<cpu .*<\/cpu>/,
          `<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>qemu64</model><feature policy='require' name='avx512-bf16'/></cpu>`,
        ),
      `<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc52b'/></source></hostdev>
       <interface type='bridge'><mac address='52:54:00:00:00:07'/><source bridge='br-missing'/></interface>
       <interface type='network'><source network='nowhere'/></interface>`,
    ),
  );
  const before = await everything();
  const { findings } = await preflight(domain);
  expect(told(findings)).toEqual([
    'refusal E_DEVICE_BOUND',
    'refusal E_NAME_TAKEN',
    'refusal E_CPU_INCOMPATIBLE',
    'refusal E_NO_NETWORK',
    'refusal E_NO_NETWORK',
  ]);
  const words = findings.map(({ message }) => message).join('\n');
  for (const reason of ['046d:c52b', OTHER_UUID, 'avx512-bf16', 'br-missing', '"nowhere"']) {
    expect(words).toContain(reason);
  }
  expect(await everything()).toEqual(before);
});

test('what a bridge is on the destination, and a device that QEMU lacks there, are found out', async () => {
  const bridge = (source: string) =>
    `<interface type='bridge'><mac address='52:54:00:00:00:07'/><source bridge='${source}'/></interface>`;
  const xml = await guestXml(undefined, `${bridge('br0')}${bridge('lo')}<graphics type='vnc'/>`);
  const { findings } = await preflight(await toA.define(xml));
  expect(told(findings)).toEqual(['refusal E_NO_NETWORK']);
  expect(findings[0]?.message).toMatch(/lo on host-b is no bridge/);
});

test('graphics that cannot be served there, and a MAC address that another guest has, are told at once', async () => {
  const nic = `<interface type='bridge'><mac address='52:54:00:00:00:07'/><source bridge='br0'/></interface>`;
  const vnc = (address: string) =>
    `<graphics type='vnc' port='5999' autoport='no'><listen type='address' address='${address}'/></graphics>`;
  const other = await bootSectorDomain({ name: 'twin', uuid: OTHER_UUID, devices: nic + vnc('0.0.0.0') });
  await toB.createTransient(other);
  const domain = await toA.createTransient(await guestXml(undefined, nic + vnc('10.77.0.1')));
  const before = await everything();
  const { findings } = await preflight(domain);
  expect(told(findings)).toEqual(['refusal E_NO_NETWORK', 'refusal E_NO_NETWORK', 'warning E_NO_NETWORK']);
  const words = findings.map(({ message }) => message).join('\n');
  for (const found of ['10.77.0.1', 'port 5999', 'domain twin has one']) expect(words).toContain(found);
  expect(await everything()).toEqual(before);
  const chosen = (xml: string) =>
    xml.replaceAll('10.77.0.1', '0.0.0.0').replace(`port='5999'`, `port='5998'`);
  const destXml = chosen(await domain.xml(['migratable']));
  const wish = { copyStorage: 'none', destXml } as const;
  const changed = await preflight(domain, { wish, policy: { allowXmlChanges: ['graphics-listen'] } });
  expect(told(changed.findings)).toEqual(['warning E_NO_NETWORK']);
});

test('a pool, a secret and a network filter that the destination lacks are refused at once', async () => {
  const domain = await toA.define(
    await guestXml(
      undefined,
      `<disk type='volume' device='disk'><driver name='qemu' type='raw' cache='none'/>
         <source pool='nowhere' volume='v'/><target dev='vda' bus='virtio'/></disk>
       <disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>
         <source protocol='rbd' name='pool/image'><host name='127.0.0.1'/>
           <auth username='web'><secret type='ceph' uuid='${OTHER_UUID}'/></auth></source>
         <target dev='vdb' bus='virtio'/></disk>
       <interface type='bridge'><mac address='52:54:00:00:00:07'/><source bridge='br0'/>
         <filterref filter='own'/></interface>`,
    ),
  );
  const { findings } = await preflight(domain);
  expect(told(findings)).toEqual([
    'refusal E_FILE_MISSING',
    'refusal E_FILE_MISSING',
    'refusal E_NO_NETWORK',
  ]);
  const words = findings.map(({ message }) => message).join('\n');
  for (const missing of ['pool "nowhere"', OTHER_UUID, 'filter "own"']) expect(words).toContain(missing);
});

test('a block job that libvirt has under way is told', async () => {
  const root = await mkdtemp(join(tmpdir(), 'vmferry-preflight-'));
  try {
    const [from, to] = [join(root, 'from'), join(root, 'to')];
    await writeFile(from, Buffer.alloc(32 << 20, 1));
    const xml = await guestXml(
      undefined,
      `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${from}'/><target dev='vda' bus='virtio'/></disk>`,
    );
    const domain = await toA.createTransient(xml);
    expect(await domain.blockJob('vda')).toBeUndefined();
    const copy = ['blockcopy', 'web', 'vda', '--dest', to, '--format', 'raw', '--bandwidth', '1'];
    await run(['virsh', '-c', a.uri, ...copy, '--transient-job']);
    expect(await domain.blockJob('vda')).toMatchObject({ type: 'copy', total: BigInt(32 << 20) });
    const { findings } = await preflight(domain, { wish: { copyStorage: 'all' } });
    expect(told(findings)).toContain('refusal E_GUEST_BUSY');
    await domain.destroy();
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});

test('a machine type, an emulator and an accelerator that the destination has not are refused, and not tried', async () => {
  const domain = await toA.define(await guestXml());
  const other = (part: Partial<DomainFacts['shape']>) =>
    preflight(domain, { change: (facts) => ({ ...facts, shape: { ...facts.shape, ...part } }) });
  const machine = await other({ machine: 'pc-i440fx-99.1' });
  expect(told(machine.findings)).toEqual(['refusal E_MACHINE_UNKNOWN']);
  expect(machine.findings[0]?.message).toMatch(/pc-i440fx-99\.1.*not supported/);
  expect(machine.findings[0]?.remedy).toMatch(/It has pc-i440fx-\d/);
  // Whoever asks libvirt about an emulator has it started.
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-emulator-'));
  try {
    const program = join(folder, 'qemu');
    await writeFile(program, `#!/bin/sh\ntouch ${join(folder, 'started')}\n`, { mode: 0o755 });
    const emulator = await other({ emulator: program });
    expect(told(emulator.findings)).toEqual(['refusal E_MACHINE_UNKNOWN']);
    expect(await readdir(folder)).toEqual(['qemu']);
  } finally {
    await rm(folder, { recursive: true });
  }
  const accelerator = await other({ virtType: 'kvm' });
  expect(told(accelerator.findings)).toContain('refusal E_MACHINE_UNKNOWN');
  expect(accelerator.findings[0]?.message).toMatch(/kvm/);
});

test('a definition that is there already, snapshots, memory and huge pages', async () => {
  await toB.define(await guestXml());
  const domain = await toA.define(
    await guestXml((xml) =>
      xml.replace(`<memory unit='MiB'>64`, `<memoryBacking><hugepages/></memoryBacking><memory unit='TiB'>4`),
    ),
  );
  const huge = await preflight(domain, { change: (facts) => ({ ...facts, snapshots: true }) });
  expect(told(huge.findings)).toEqual([
    'refusal E_GUEST_BLOCKED',
    'refusal E_NO_MEMORY',
    'warning E_NAME_TAKEN',
  ]);
  expect(huge.findings[1]?.message).toMatch(/needs 2097152 huge pages of 2 MiB/);
  const ordinary = await preflight(domain, {
    change: (facts) => ({ ...facts, shape: { ...facts.shape, hugePages: [] } }),
  });
  expect(told(ordinary.findings)).toContain('refusal E_NO_MEMORY');
});

test('disks that are copied get their images, and an overlay refers to its base', async () => {
  const root = await mkdtemp(join(tmpdir(), 'vmferry-preflight-'));
  const disk = (target: string, path: string) =>
    `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${path}'/><target dev='${target}' bus='virtio'/></disk>`;
  try {
    for (const name of ['src', 'dst', 'bases']) await mkdir(join(root, name));
    const [flat, top, base] = [join(root, 'src/flat'), join(root, 'src/top'), join(root, 'bases/base')];
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', base, '24M']);
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', flat, '16M']);
    const xml = await guestXml(undefined, disk('vda', flat) + disk('vdb', top));
    const domain = await toA.createTransient(xml);
    const destXml = (await domain.xml(['migratable'])).replaceAll(join(root, 'src'), join(root, 'dst'));

    const plain = await preflight(domain);
    expect(told(plain.findings)).toEqual(['refusal E_DISK_UNSAFE', 'refusal E_DISK_UNSAFE']);

    const policy: Partial<DestPolicy> = {
      imageDirectories: named(join(root, 'dst')),
      baseImageDirectories: named(join(root, 'bases')),
      allowXmlChanges: ['disk-source'],
    };
    const where = { wish: { copyStorage: 'all', destXml } as const };
    expect(told((await preflight(domain, where)).findings)).toEqual([
      'refusal E_DEST_XML',
      'refusal E_DEST_XML',
      'refusal E_REFUSED',
      'refusal E_REFUSED',
    ]);
    const inPlace = await preflight(domain, { wish: { copyStorage: 'all' }, policy });
    expect(told(inPlace.findings)).toEqual(['refusal E_REFUSED', 'refusal E_REFUSED']);

    const whole = await preflight(domain, { ...where, policy });
    expect(whole.findings).toEqual([]);
    expect(await readdir(join(root, 'dst'))).toEqual([]);
    const info = async (name: string) =>
      JSON.parse((await run(['qemu-img', 'info', '--output=json', join(root, 'dst', name)])).stdout);
    const images = await whole.store.create(whole.images);
    expect(await info('flat')).toMatchObject({ format: 'qcow2', 'virtual-size': 16 * 1024 * 1024 });
    expect(await info('top')).toMatchObject({ format: 'qcow2', 'virtual-size': 24 * 1024 * 1024 });
    expect((await info('top'))['backing-filename']).toBeUndefined();
    expect(told((await preflight(domain, { ...where, policy })).findings)).toEqual([
      'refusal E_FILE_EXISTS',
      'refusal E_FILE_EXISTS',
    ]);
    await images.remove();
    expect(await readdir(join(root, 'dst'))).toEqual([]);

    const wish = { copyStorage: 'inc', destXml } as const;
    const noBase = await preflight(domain, { wish, policy: { ...policy, baseImageDirectories: [] } });
    expect(told(noBase.findings)).toEqual(['refusal E_REFUSED']);
    const overlay = await preflight(domain, { wish, policy });
    expect(overlay.findings).toEqual([]);
    const overlays = await overlay.store.create(overlay.images);
    expect(await info('top')).toMatchObject({ 'backing-filename': base, 'backing-filename-format': 'qcow2' });
    expect((await info('flat'))['backing-filename']).toBeUndefined();
    await overlays.remove();
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});

test('what an operator changes in the XML is held against the destination’s configuration', async () => {
  const domain = await toA.createTransient(
    await guestXml(undefined, `<graphics type='vnc' port='-1' listen='127.0.0.1'/>`),
  );
  const xml = await domain.xml(['migratable']);
  const asked = async (
    destXml: string,
    allowXmlChanges: DestPolicy['allowXmlChanges'] = ['graphics-listen'],
  ) =>
    (await preflight(domain, { wish: { copyStorage: 'none', destXml }, policy: { allowXmlChanges } }))
      .findings;
  expect(await asked(xml, [])).toEqual([]);
  const other = xml.replaceAll('127.0.0.1', '0.0.0.0');
  expect(await asked(other)).toEqual([]);
  expect(told(await asked(other, ['pinning']))).toEqual(['refusal E_DEST_XML', 'refusal E_DEST_XML']);
  const [finding] = await asked(xml.replace(/<memory .*<\/memory>/, `<memory unit='KiB'>131072</memory>`));
  expect(finding?.message).toMatch(/^--dest-xml changes \/domain\/memory from "65536" to "131072"/);
  await toB.define((await guestXml()).replace(UUID, OTHER_UUID));
  expect(told(await asked(xml))).toEqual(['refusal E_NAME_TAKEN']);
  const named = await preflight(domain, { wish: { copyStorage: 'none', destName: 'web-2' } });
  expect(named.findings).toEqual([]);
  const [refused] = await asked(xml.replace('<name>web</name>', '<name>web-2</name>'));
  expect(refused?.remedy).toMatch(/--dest-guest libvirt:web-2/);
  for (const wrong of ['<!DOCTYPE a>', xml.replace(/(<source file=')[^']*/, '$1relative.img')]) {
    const gathered = gatherDomain(toA, domain, { copyStorage: 'none', destXml: wrong });
    await expect(gathered).rejects.toMatchObject({ code: 'E_DEST_XML' });
  }
});

test('disks must lie where the destination lets them, if it says where', async () => {
  const domain = await toA.createTransient(await guestXml());
  const asked = async (directory: string) =>
    told((await preflight(domain, { policy: { diskDirectories: named(directory) } })).findings);
  expect(await asked('/var/lib/libvirt/images')).toEqual(['refusal E_REFUSED']);
  expect(await asked('/')).toEqual([]);
});

test('a preflight that is rehearsed leaves nothing behind, and is none where no libvirt is', async () => {
  expect(await rehearsePreflight(libvirtOptions({ uri: b.uri }), ofHostB())).toBe(true);
  expect(await toB.domains()).toEqual([]);
  const nowhere = libvirtOptions({ uri: 'qemu+unix:///system?socket=/nonexistent' });
  expect(await rehearsePreflight(nowhere, ofHostB())).toBe(false);
});
