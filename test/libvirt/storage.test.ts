/** Disks that the hosts do not share go along, while the guest writes to them. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { ManagedProcess, run } from '../rig/process.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';

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

test.each(['precopy', 'postcopy'] as const)(
  'disks are copied by %s while the guest writes to one of them',
  async (strategy) => {
    const { libvirts } = rig;
    const [written, still] = [`${strategy}-written.qcow2`, `${strategy}-still.qcow2`];
    await makeImage(written);
    await makeImage(still, Buffer.concat([randomBytes(24 << 20), Buffer.alloc(8 << 20)]));
    const domain = await libvirts.boot({
      disk: '/dev/vda',
      devices: disk(written, 'vda') + disk(still, 'vdb'),
    });
    const agents = await libvirts.agents();
    const there = await domain.awaitOn('b');
    const { report, events } = await follow(
      agents.migrate({ guest: domain.uri, strategy, copyStorage: 'all' }),
    );
    expect(report.error).toBeNull();
    expect(report).toMatchObject({ outcome: 'completed', strategy });
    const copied = events.flatMap((event) => (event.type === 'progress' && event.disks ? [event.disks] : []));
    expect(copied.at(-1)?.totalBytes).toBeGreaterThanOrEqual(32 << 20);
    await there.arrived();
    // The guest reads every block that it has ever written, here and there.
    await verifyHistory(domain.places);
    const compared = await run(['qemu-img', 'compare', '-U', imageOn('a', still), imageOn('b', still)]);
    expect(compared.stdout).toContain('Images are identical');
  },
);

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
      `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
        <source file='/var/lib/libvirt/images/plain.raw'/><target dev='vda' bus='virtio'/></disk>`,
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
  const copied = events.flatMap((event) => (event.type === 'progress' && event.disks ? [event.disks] : []));
  expect(copied.at(-1)?.totalBytes).toBeLessThan(1 << 30);
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
