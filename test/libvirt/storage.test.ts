/** Disks that the hosts do not share go along, while the guest writes to them. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import type { DestGuestFactory } from '@vmferry/dest-agent/guests';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { DestGuest } from '@vmferry/engine/guest';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { expect, test } from 'vitest';
import { type Agents, follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { ManagedProcess, run } from '../rig/process.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';
import { overriding } from '../simulated/support.ts';

const rig = useTwoLibvirts();
/** As everybody on the machine sees it; libvirt's path is the same on both hosts. */
function imageOn(host: HostName, name: string): string {
  return join(rig.libvirts.hosts[host].dir, 'lib', 'images', name);
}

/** An image on the source, with something in it that the guest never touches. The destination's agent makes its own. */
async function makeImage(name: string, content?: Buffer): Promise<void> {
  for (const host of ['a', 'b'] as const) await mkdir(join(imageOn(host, name), '..'), { recursive: true });
  const image = imageOn('a', name);
  if (content) {
    await writeFile(`${image}.raw`, content);
    await run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', `${image}.raw`, image]);
  } else {
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, String(64 << 20)]);
  }
}

const disk = (name: string, target: string) =>
  `<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
    <source file='/var/lib/libvirt/images/${name}'/><target dev='${target}' bus='virtio'/></disk>`;

const raw = (name: string, target: string) =>
  `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
    <source file='/var/lib/libvirt/images/${name}'/><target dev='${target}' bus='virtio'/></disk>`;

/** Agents that have both hosts' images compared when the guest has stopped here and has not run there yet. */
async function comparing(from: HostName, ...names: readonly string[]): Promise<Agents & { said: string[] }> {
  const { hosts } = rig.libvirts;
  const { agentSettings, daemonPid } = hosts[from === 'a' ? 'b' : 'a'];
  const [settings, policy] = [libvirtOptions(agentSettings), libvirtPolicy(agentSettings)];
  const said: string[] = [];
  const guests: DestGuestFactory = async (uri) => {
    const guest = await LibvirtDestGuest.connect(uri.slice('libvirt:'.length), settings, policy);
    return overriding<DestGuest>(guest, {
      run: async (how) => {
        for (const name of names) said.push(await compare(name, daemonPid));
        return await guest.run(how);
      },
    });
  };
  return { ...(await rig.libvirts.agents(from, {}, { guests })), said };
}

/** "Images are identical." The paths of what they lie on are those of the host that this libvirtd has. */
async function compare(name: string, daemonPid: number): Promise<string> {
  const inside = ['nsenter', `--mount=/proc/${daemonPid}/ns/mnt`];
  // Images that differ are an exit status of 1.
  const told = ['sh', '-c', 'qemu-img compare -U "$0" "$1" || true', imageOn('a', name), imageOn('b', name)];
  return (await run([...inside, ...told])).stdout.trim();
}

/** Of the disks that were copied, as seen last. */
function diskBytes(events: readonly MigrationEvent[]): number {
  const copied = events.flatMap((event) => (event.type === 'progress' && event.disks ? [event.disks] : []));
  return copied.at(-1)?.totalBytes ?? 0;
}

test('disks go along there and back by every strategy, while the guest writes to one of them', async () => {
  const { libvirts } = rig;
  const [written, still] = ['written.qcow2', 'still.raw'];
  await makeImage(written);
  await writeFile(imageOn('a', still), Buffer.concat([randomBytes(24 << 20), Buffer.alloc(8 << 20)]));
  const domain = await libvirts.boot({
    disk: '/dev/vda',
    devices: disk(written, 'vda') + raw(still, 'vdb'),
  });
  const trips = [
    ['precopy', 'a', 'b'],
    ['postcopy', 'b', 'a'],
    ['hybrid', 'a', 'b'],
    ['auto', 'b', 'a'],
  ] as const;
  for (const [strategy, from, into] of trips) {
    const agents = await comparing(from, written, still);
    const there = await domain.awaitOn(into);
    const request = { guest: domain.uri, strategy, copyStorage: 'all' } as const;
    if (existsSync(imageOn(into, still))) {
      // What it has left there is nobody's to overwrite but its operator's.
      const { report } = await follow(agents.migrate(request));
      expect(report).toMatchObject({ outcome: 'refused', error: { code: 'E_FILE_EXISTS', side: 'dest' } });
      expect(report.error?.message).toContain(written);
      expect(report.error?.message).toContain(still);
      for (const name of [written, still]) await rm(imageOn(into, name));
    }
    const { report, events } = await follow(agents.migrate(request));
    expect(report, strategy).toMatchObject({ outcome: 'completed', error: null });
    if (strategy !== 'auto') expect(report.strategy).toBe(strategy);
    expect(agents.said, strategy).toEqual(['Images are identical.', 'Images are identical.']);
    expect(diskBytes(events)).toBeGreaterThanOrEqual(32 << 20);
    await there.arrived();
  }
  // The guest reads every block that it has ever written, wherever it was.
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(trips.length);
}, 90_000);

test('of a disk with a backing image only what lies above it is copied', async () => {
  const { libvirts } = rig;
  const [base, top] = ['base.raw', 'top.qcow2'];
  const content = Buffer.concat([Buffer.alloc(8 << 20), randomBytes(24 << 20)]);
  for (const host of ['a', 'b'] as const) {
    await mkdir(join(imageOn(host, base), '..'), { recursive: true });
    await writeFile(imageOn(host, base), content);
  }
  const below = ['-F', 'raw', '-b', `/var/lib/libvirt/images/${base}`];
  await run(['qemu-img', 'create', '-q', '-u', '-f', 'qcow2', ...below, imageOn('a', top), '32M']);
  const domain = await libvirts.boot({ disk: '/dev/vda', devices: disk(top, 'vda') });
  const agents = await comparing('a', top);
  const there = await domain.awaitOn('b');
  const { report } = await follow(
    agents.migrate({ guest: domain.uri, strategy: 'precopy', copyStorage: 'inc' }),
  );
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  expect(agents.said).toEqual(['Images are identical.']);
  await there.arrived();
  await verifyHistory(domain.places);
  expect((await stat(imageOn('b', top))).blocks * 512).toBeLessThan(16 << 20);
  expect((await readFile(imageOn('b', base))).equals(content)).toBe(true);
}, 60_000);

test('a disk of which QEMU records what was written goes along, and so does the guest’s memory', async () => {
  const { libvirts } = rig;
  const name = 'recorded.qcow2';
  await makeImage(name);
  await run(['qemu-img', 'bitmap', '--add', imageOn('a', name), 'since-monday']);
  const domain = await libvirts.boot({ disk: '/dev/vda', devices: disk(name, 'vda') });
  const agents = await comparing('a', name);
  const there = await domain.awaitOn('b');
  const { report } = await follow(
    agents.migrate({ guest: domain.uri, strategy: 'precopy', copyStorage: 'all' }),
  );
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  expect(report.notes.join()).toContain('"dirty-bitmap" is unknown');
  expect(agents.said).toEqual(['Images are identical.']);
  await there.runs();
  await verifyHistory(domain.places);
}, 60_000);

test('of disks of several kinds only those that the hosts do not share are copied', async () => {
  const { libvirts, later } = rig;
  const content = Buffer.concat([randomBytes(1 << 20), Buffer.alloc(3 << 20)]);
  for (const host of ['a', 'b'] as const) {
    await mkdir(join(imageOn(host, 'x'), '..'), { recursive: true });
    await writeFile(imageOn(host, 'medium.iso'), content);
  }
  await writeFile(imageOn('a', 'plain.raw'), content);
  await makeImage('layered.qcow2', content);
  const remote = await serveDisk(later, 1 << 30);
  const { places, uri, ...domain } = await libvirts.boot({
    devices: [
      raw('plain.raw', 'vda'),
      disk('layered.qcow2', 'vdb'),
      `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
        <source file='/var/lib/libvirt/images/medium.iso'/><target dev='hda' bus='ide'/><readonly/></disk>`,
      `<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>
        <source protocol='nbd'><host transport='unix' socket='${remote}'/></source>
        <target dev='vdc' bus='virtio'/></disk>`,
    ].join(''),
  });
  const agents = await libvirts.agents();
  const there = await libvirts.placeOn('b', domain.name);
  const { report, events } = await follow(
    agents.migrate({ guest: uri, strategy: 'precopy', copyStorage: 'all' }),
  );
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  expect(diskBytes(events)).toBeLessThan(1 << 30);
  await verifyHistory([...places, await there.guest]);
  expect((await readFile(imageOn('b', 'plain.raw'))).equals(content)).toBe(true);
  const compared = await run([
    'qemu-img',
    'compare',
    '-U',
    imageOn('a', 'layered.qcow2'),
    imageOn('b', 'layered.qcow2'),
  ]);
  expect(compared.stdout).toContain('Images are identical');
});

/** A network disk that both hosts reach, by its socket. */
async function serveDisk(later: typeof rig.later, size: number): Promise<string> {
  const dir = later(await mkdtemp(join(tmpdir(), 'vmferry-nbd-')), (each) =>
    rm(each, { recursive: true, force: true }),
  );
  const [image, socket] = [join(dir, 'disk.raw'), join(dir, 'socket')];
  await run(['qemu-img', 'create', '-q', '-f', 'raw', image, String(size)]);
  const server = later(
    new ManagedProcess(['qemu-nbd', '--persistent', '--shared=0', '-f', 'raw', '-k', socket, image]),
    (each) => each.stop(1000),
  );
  server.child.stdin.end();
  await expect.poll(() => existsSync(socket)).toBe(true);
  return socket;
}
