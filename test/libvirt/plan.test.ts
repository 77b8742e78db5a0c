/** What `vmferry plan` and a refused migration say of a domain, between two real libvirtds with their agents. */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { run as vmferry } from '@vmferry/migrate-cli/run';
import { expect, test } from 'vitest';
import { bootSectorDomain, runsOn } from '../guest/boot-sector-domain.ts';
import { follow } from '../migrate/agents.ts';
import { run } from '../rig/process.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';

const rig = useTwoLibvirts();
const UUID = '11111111-5555-4000-8000-000000000001';
const OTHER_UUID = '11111111-5555-4000-8000-000000000002';

async function boot(devices = ''): Promise<void> {
  const { hosts, to } = rig.libvirts;
  for (const uuid of [UUID, OTHER_UUID]) rig.libvirts.removeLater(uuid);
  await to.a.createTransient(await bootSectorDomain({ name: 'web', uuid: UUID, devices }));
  await runsOn(hosts.a, 'web');
}

const taken = async () => rig.libvirts.to.b.define(await bootSectorDomain({ name: 'web', uuid: OTHER_UUID }));

const xmlOf = async () => (await rig.libvirts.to.a.domainByName('web')).xml(['migratable']);

async function plan(url: string, ...args: readonly string[]) {
  let text = '';
  const stdout = new Writable({
    write: (chunk: Buffer, _, done) => {
      text += chunk.toString();
      done();
    },
  });
  const stderr = new Writable({ write: (_chunk, _, done) => done() });
  const { uri } = rig.libvirts.hosts.a;
  const status = await vmferry(['plan', 'libvirt:web', '--to', url, '--libvirt', uri, ...args], {
    stdout,
    stderr,
    env: process.env,
    signals: new EventEmitter(),
  });
  return { status, text };
}

test('a plan tells all that is in the way on both hosts, and touches neither', async () => {
  await boot(`<shmem name='held'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>`);
  await taken();
  const agents = await rig.libvirts.agents();
  const before = await xmlOf();
  const { status, text } = await plan(agents.url, '--json');
  expect(status).toBe(0);
  const json = JSON.parse(text);
  expect(json.obstacles).toEqual([
    expect.objectContaining({
      side: 'source',
      code: 'E_DEVICE_BOUND',
      message: expect.stringContaining('held'),
    }),
    // QEMU's own word.
    expect.objectContaining({
      side: 'source',
      code: 'E_GUEST_BLOCKED',
      message: expect.stringContaining('ivshmem'),
    }),
    expect.objectContaining({
      side: 'dest',
      code: 'E_NAME_TAKEN',
      message: expect.stringContaining(OTHER_UUID),
    }),
  ]);
  expect(json.strategies).toHaveLength(3);
  expect((await plan(agents.url)).text).toMatch(
    /^note: As it is, the guest cannot be moved: a domain named web is/m,
  );
  expect(await xmlOf()).toBe(before);
  expect((await rig.libvirts.to.b.domains()).map(({ uuid }) => uuid)).toEqual([OTHER_UUID]);
  await runsOn(rig.libvirts.hosts.a, 'web');
});

test('a migration that preflight refuses says every reason, and the guest runs on', async () => {
  await boot();
  await taken();
  const agents = await rig.libvirts.agents();
  const destXml = (await xmlOf()).replace(`<memory unit='KiB'>65536`, `<memory unit='KiB'>131072`);
  const { report } = await follow(agents.migrate({ guest: 'libvirt:web', destXml }));
  expect(report).toMatchObject({ outcome: 'refused', error: { side: 'dest', phase: 'preflight' } });
  expect(report.error?.message).toMatch(/\/domain\/memory/);
  expect(report.error?.message).toContain(OTHER_UUID);
  await runsOn(rig.libvirts.hosts.a, 'web');
});

test('images that were created for a migration are gone again whenever in its set-up it is cancelled', async () => {
  const { hosts } = rig.libvirts;
  const folder = (host: 'a' | 'b') => join(hosts[host].dir, 'lib', 'images');
  for (const host of ['a', 'b'] as const) await mkdir(folder(host), { recursive: true });
  await run(['qemu-img', 'create', '-q', '-f', 'qcow2', join(folder('a'), 'data.qcow2'), '64M']);
  await boot(
    `<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
      <source file='/var/lib/libvirt/images/data.qcow2'/><target dev='vda' bus='virtio'/></disk>`,
  );
  const agents = await rig.libvirts.agents();
  // From before libvirt has been asked until its QEMU is starting there: each has an end of its own.
  for (const cancelAfterMs of [0, 150, 300, 450, 600]) {
    const migration = agents.migrate({
      guest: 'libvirt:web',
      strategy: 'precopy',
      copyStorage: 'all',
      maxBandwidth: 2e6,
    });
    const done = follow(migration);
    await expect.poll(() => readdir(folder('b')), { timeout: 30_000 }).toEqual(['data.qcow2']);
    await sleep(cancelAfterMs);
    migration.cancel();
    expect((await done).report.outcome).toBe('cancelled');
    await expect.poll(() => readdir(folder('b')), { timeout: 30_000 }).toEqual([]);
    await runsOn(hosts.a, 'web');
  }
});

test('a volume that libvirt created for a migration is gone again when that is cancelled', async () => {
  const { hosts } = rig.libvirts;
  const folder = (host: 'a' | 'b') => join(hosts[host].dir, 'lib', 'pool');
  const virsh = (host: 'a' | 'b', ...args: readonly string[]) =>
    run(['virsh', '-c', hosts[host].uri, ...args]);
  for (const host of ['a', 'b'] as const) {
    await mkdir(folder(host));
    await virsh(host, 'pool-create-as', 'pool', 'dir', '--target', '/var/lib/libvirt/pool');
  }
  await virsh('a', 'vol-create-as', 'pool', 'data', '16M', '--format', 'raw');
  await writeFile(join(folder('a'), 'data'), randomBytes(16 << 20));
  await boot(
    `<disk type='volume' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source pool='pool' volume='data'/><target dev='vda' bus='virtio'/></disk>`,
  );
  const agents = await rig.libvirts.agents();
  const request = { guest: 'libvirt:web', strategy: 'precopy', copyStorage: 'all' } as const;
  const migration = agents.migrate({ ...request, maxBandwidth: 2e6 });
  const done = follow(migration);
  await expect.poll(() => readdir(folder('b')), { timeout: 30_000 }).toEqual(['data']);
  migration.cancel();
  expect((await done).report.outcome).toBe('cancelled');
  await expect.poll(() => readdir(folder('b')), { timeout: 30_000 }).toEqual([]);
  await runsOn(hosts.a, 'web');
  const { report } = await follow(agents.migrate(request));
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  const [there, here] = await Promise.all(
    ['b', 'a'].map((host) => readFile(join(folder(host as 'a'), 'data'))),
  );
  expect(there?.equals(here!)).toBe(true);
});
