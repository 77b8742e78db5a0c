/** Disks that the hosts do not share go along, while the guest writes to them. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { run } from '../rig/process.ts';
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
