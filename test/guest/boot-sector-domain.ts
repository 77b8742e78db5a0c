import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LibvirtHost } from '../rig/libvirt.ts';
import { TimeoutError } from '../rig/process.ts';
import { bootSectorHardware } from './boot-sector.ts';

export interface BootSectorDomainOptions {
  readonly name: string;
  readonly uuid: string;
  /** Default 64. */
  readonly memoryMiB?: number;
  /** End of the memory it writes to. Default 48. */
  readonly endMiB?: number;
  /** Further devices, as XML. */
  readonly devices?: string;
}

/** The boot-sector guest as libvirt takes it: a floppy, read-only, so that any host may read it. */
export async function bootSectorDomain(options: BootSectorDomainOptions): Promise<string> {
  const { name, uuid, memoryMiB = 64, endMiB = 48, devices = '' } = options;
  const { boot } = await bootSectorHardware({ endMiB });
  if (boot.kind !== 'disk') throw new Error('the boot-sector guest is a disk');
  return `<domain type='qemu'>
    <name>${name}</name><uuid>${uuid}</uuid>
    <memory unit='MiB'>${memoryMiB}</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>
    <features><acpi/></features>
    <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
    <devices>
      <disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='${boot.image}'/>
        <target dev='fda' bus='fdc'/><readonly/></disk>
      <memballoon model='none'/>
      <serial type='file'><source path='/var/log/libvirt/qemu/${name}.serial' append='on'/></serial>
      ${devices}
    </devices>
  </domain>`;
}

/** Passes that it has finished on a host so far. */
async function passes(host: LibvirtHost, name: string): Promise<number> {
  const text = await readFile(join(host.dir, 'log', 'qemu', `${name}.serial`), 'latin1').catch(() => '');
  return text.split('B').length - 1;
}

/** Resolves when it has finished two more passes on this host: it runs here. */
export async function runsOn(host: LibvirtHost, name: string): Promise<void> {
  const before = await passes(host, name);
  const deadline = Date.now() + 20_000;
  while ((await passes(host, name)) < before + 2) {
    if (Date.now() > deadline) throw new TimeoutError(`${name} does not run on ${host.name}`);
    await sleep(20);
  }
}
