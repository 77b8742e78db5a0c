/** What an agent sees of its host, on a host made of files. */
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { deviceBytes, deviceIdentity } from '@vmferry/hypervisor/libvirt/preflight/block-device';
import { FileSystems } from '@vmferry/hypervisor/libvirt/preflight/file-systems';
import { HostView } from '@vmferry/hypervisor/libvirt/preflight/host-view';
import { afterEach, beforeEach, expect, test } from 'vitest';

let root: string;
let view: HostView;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'vmferry-view-'));
  view = new HostView(root);
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function put(path: string, text = '', mode = 0o644): Promise<void> {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
  await chmod(join(root, path), mode);
}

test('interfaces are told, and which of them are bridges', async () => {
  expect(await view.interfaces()).toBeUndefined();
  await put('/sys/class/net/br0/bridge/stp_state');
  await put('/sys/class/net/eth0/mtu');
  expect(await view.interfaces()).toEqual(
    new Map([
      ['br0', true],
      ['eth0', false],
    ]),
  );
  await put('/sys/class/net/ovs-system/mtu');
  expect((await view.interfaces())?.get('eth0')).toBe(true);
});

test('which addresses it has, and what listens there', async () => {
  expect(await view.listening()).toBeUndefined();
  const net = '/proc/1/net';
  await put(
    `${net}/fib_trie`,
    `Local:
  +-- 10.0.0.0/24 2 0 2
     |-- 10.0.0.0
        /24 link UNICAST
     |-- 10.0.0.2
        /32 host LOCAL
     |-- 10.0.0.255
        /32 link BROADCAST
`,
  );
  await put(`${net}/if_inet6`, 'fd000000000000000000000000000002 04 40 00 82     eth0\n');
  await put(
    `${net}/tcp`,
    `  sl  local_address rem_address   st tx_queue
   0: 0200000A:170D 00000000:0000 0A 00000000:00000000 00:00000000
   1: 0200000A:170E 0300000A:9999 01 00000000:00000000 00:00000000
`,
  );
  await put(
    `${net}/tcp6`,
    `  sl  local_address                         remote_address                        st tx_queue
   0: 000000FD000000000000000002000000:170F 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000
`,
  );
  expect(await view.listening()).toMatchObject({
    addresses: new Set(['10.0.0.2', 'fd00::2']),
    taken: [
      { address: '10.0.0.2', port: 5901 },
      { address: 'fd00::2', port: 5903 },
      { address: '::', port: 22 },
    ],
  });
});

test('the size of a huge page that names none', async () => {
  expect(await view.defaultHugePageBytes()).toBeUndefined();
  await put('/proc/meminfo', 'MemTotal: 1 kB\nHugepagesize:       2048 kB\n');
  expect(await view.defaultHugePageBytes()).toBe(2 * 1024 * 1024);
});

test('what is at a path', async () => {
  await put('/img/a');
  const places = await view.places(['/img/a', '/img', '/img/b', '/img/a/b', `/${'x'.repeat(300)}`]);
  expect([...places.values()]).toEqual([
    { found: 'something', kind: 'file', inode: expect.any(Number) },
    { found: 'something', kind: 'directory', inode: expect.any(Number) },
    { found: 'nothing' },
    { found: 'nothing' },
    { found: 'unknown', why: 'ENAMETOOLONG' },
  ]);
});

test('userfaultfd is there for root, for everybody, or by its device', async () => {
  const qemu = (uid: number, hypervisor = 8_000_000) => ({ qemuUser: { uid, gid: uid }, hypervisor });
  const available = async (of: Parameters<HostView['userfaultfd']>[0]) =>
    (await view.userfaultfd(of)).available;
  expect(await view.userfaultfd(qemu(0))).toEqual({ available: false, why: 'the kernel has no userfaultfd' });
  await put('/proc/sys/vm/unprivileged_userfaultfd', '0\n');
  expect(await available(qemu(0))).toBe(true);
  expect(await available({ qemuUser: undefined, hypervisor: 0 })).toBe(true);
  expect(await view.userfaultfd(qemu(64_055))).toMatchObject({
    available: false,
    why: expect.stringMatching(/64055/),
  });
  await put('/dev/userfaultfd', '', 0o600);
  expect(await available(qemu(64_055))).toBe(false);
  await chmod(join(root, '/dev/userfaultfd'), 0o666);
  expect(await available(qemu(64_055))).toBe(true);
  expect(await available(qemu(64_055, 7_002_000))).toBe(false);
  await put('/proc/sys/vm/unprivileged_userfaultfd', '1\n');
  expect(await available(qemu(64_055, 7_002_000))).toBe(true);
});

test('a path belongs to the deepest mount, and to the last of several on one place', () => {
  const systems = new FileSystems(`
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/img rw - ext4 /dev/sdb rw
31 22 0:41 / /srv/img rw shared:9 master:1 - nfs4 host:/img rw
32 22 0:42 / /srv/with\\040blank rw - fuse.glusterfs vol rw
33 22 0:43 / /srv/fuse rw - fuse.sshfs x rw
`);
  expect(systems.at('/srv/img/a/b')).toEqual({ filesystem: 'nfs4', shared: true });
  expect(systems.at('/srv/imgs')).toEqual({ filesystem: 'ext4', shared: false });
  expect(systems.at('/srv/with blank/a')).toEqual({ filesystem: 'fuse.glusterfs', shared: true });
  expect(systems.at('/srv/fuse')).toEqual({ filesystem: 'fuse.sshfs', shared: false });
  expect(new FileSystems('').at('/a')).toEqual({ filesystem: '', shared: false });
});

test('a block device is known by what it is, on whichever host and under whatever number', async () => {
  const identity = async (number: number) => await deviceIdentity(number, join(root, 'sys'));
  const device = async (major: number, minor: number, attributes: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(attributes))
      await put(`/sys/dev/block/${major}:${minor}/${name}`, text);
    // As the C library puts a device's number together.
    return Number((BigInt(major & 0xfff) << 8n) | BigInt(minor & 0xff) | (BigInt(minor & ~0xff) << 12n));
  };
  expect(await identity(await device(253, 3, { 'dm/uuid': 'LVM-abc\n', wwid: 'x' }))).toBe('dm:LVM-abc');
  const encrypted = { 'dm/uuid': 'CRYPT-LUKS2-0123-my-name\n' };
  expect(await identity(await device(253, 4, encrypted))).toBe('dm:CRYPT-LUKS2-0123');
  expect(await identity(await device(8, 300, { 'device/wwid': 'naa.600\n' }))).toBe('wwid:naa.600');
  expect(await identity(await device(259, 0, { wwid: 'eui.00\n' }))).toBe('wwid:eui.00');
  expect(await identity(await device(7, 0, { 'loop/backing_file': '/a' }))).toBeUndefined();
  expect(await identity(await device(253, 5, { 'dm/uuid': '\n' }))).toBeUndefined();
  expect(await identity(1)).toBeUndefined();
  await put('/sys/devices/sda/device/wwid', 'naa.7\n');
  await put('/sys/devices/sda/sda2/partition', '2\n');
  await symlink(join(root, 'sys/devices/sda/sda2'), join(root, 'sys/dev/block/8:2'));
  expect(await identity(0x802)).toBe('wwid:naa.7 partition 2');
  const bytes = async (number: number) => await deviceBytes(number, join(root, 'sys'));
  expect(await bytes(await device(7, 1, { size: '2048\n' }))).toBe(1024 * 1024);
  expect(await bytes(1)).toBeUndefined();
});
