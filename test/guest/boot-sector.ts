import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../rig/process.ts';
import { type Hardware, type Nic, QemuProcess } from '../rig/qemu.ts';
import { repoRoot, testFile } from '../rig/repo.ts';
import type { HostName } from '../rig/versions.ts';

const START_MIB = 1;

export interface BootSectorOptions extends Omit<Hardware, 'boot' | 'memoryMiB'> {
  /** Default 64. */
  readonly memoryMiB?: number;
  /** End of the memory it writes to. Default 48. */
  readonly endMiB?: number;
  readonly nics?: readonly Nic[];
}

/** A 512-byte guest that starts in under two seconds, for tests of what fails. */
export async function bootSectorHardware(options: BootSectorOptions = {}): Promise<Hardware> {
  const image = await buildBootSector(options.endMiB ?? 48);
  return { ...options, memoryMiB: options.memoryMiB ?? 64, boot: { kind: 'disk', image } };
}

async function buildBootSector(endMiB: number): Promise<string> {
  const source = testFile('guest/boot-sector.S');
  const cache = join(repoRoot(), '.cache', 'guest');
  await mkdir(cache, { recursive: true });
  const hash = createHash('sha256')
    .update(await readFile(source))
    .digest('hex')
    .slice(0, 12);
  const image = join(cache, `boot-sector-${endMiB}-${hash}.img`);
  const work = await mkdtemp(join(cache, 'new-'));
  const file = (name: string) => join(work, name);
  try {
    await run(['cc', '-m32', `-DEND_MIB=${endMiB}`, '-c', '-o', file('o'), source]);
    await run([
      'ld',
      '-m',
      'elf_i386',
      '-Ttext',
      '0x7c00',
      '--oformat',
      'binary',
      '-o',
      file('img'),
      file('o'),
    ]);
    await rename(file('img'), image);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return image;
}

/** Boots it and waits for its first full pass. */
export async function startBootSector(
  options: BootSectorOptions,
  placement: { readonly name: string; readonly namespace?: string; readonly host?: HostName },
): Promise<QemuProcess> {
  const qemu = await QemuProcess.start({ ...(await bootSectorHardware(options)), ...placement, role: 'run' });
  try {
    await nextPass(qemu);
  } catch (error) {
    await qemu.stop();
    throw error;
  }
  return qemu;
}

/** A destination for a boot-sector guest with the same options. */
export async function incomingBootSector(
  options: BootSectorOptions,
  placement: {
    readonly name: string;
    readonly namespace?: string;
    readonly host?: HostName;
    readonly autostart?: boolean;
  },
): Promise<QemuProcess> {
  return QemuProcess.start({ ...(await bootSectorHardware(options)), ...placement, role: 'incoming' });
}

/** Resolves when the guest has finished another pass in this QEMU: it runs here. */
export async function nextPass(qemu: QemuProcess): Promise<void> {
  const from = qemu.serial.text.length;
  const look = () => (qemu.serial.text.indexOf('B', from) >= 0 ? true : undefined);
  await qemu.serial.waitFor(look, 'pass of the boot-sector guest');
}

export interface BootSectorCheck {
  readonly pages: number;
  /** Pages whose byte cannot be, with the neighbour before it. */
  readonly bad: readonly { readonly page: number; readonly byte: number; readonly before: number }[];
}

/**
 * Holds the memory against what the guest can have left: one pass is under way, so bytes fall by one, once,
 * on the way up. The guest is held meanwhile, and runs again only if it ran.
 */
export async function checkBootSector(qemu: QemuProcess): Promise<BootSectorCheck> {
  const ran = (await qemu.runState()) === 'running';
  if (ran) await qemu.qmp.execute('stop');
  const file = join(qemu.dir, 'memory');
  const endMiB = endOf(qemu);
  await qemu.qmp.execute('pmemsave', {
    val: START_MIB << 20,
    size: (endMiB - START_MIB) << 20,
    filename: file,
  });
  if (ran) await qemu.qmp.execute('cont');
  const memory = await readFile(file);
  await rm(file);
  const bad: { page: number; byte: number; before: number }[] = [];
  let fell = false;
  for (let at = 4096; at < memory.length; at += 4096) {
    const byte = memory[at] as number;
    const before = memory[at - 4096] as number;
    if (byte === before) continue;
    if (!fell && byte === ((before - 1) & 0xff)) fell = true;
    else bad.push({ page: (START_MIB << 8) + at / 4096, byte, before });
  }
  return { pages: memory.length / 4096, bad };
}

function endOf(qemu: QemuProcess): number {
  const { boot } = qemu.options;
  const match = boot.kind === 'disk' ? /boot-sector-(\d+)-/.exec(boot.image) : null;
  if (!match) throw new Error(`${qemu.name} does not run the boot-sector guest`);
  return Number(match[1]);
}
