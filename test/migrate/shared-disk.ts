/** A disk that both QEMUs of a migration have. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { run } from '../rig/process.ts';
import type { QemuProcess } from '../rig/qemu.ts';

/** Arguments for a disk that both QEMUs have, locked by the one that may write. */
export async function withSharedDisk(): Promise<{ guest: string[]; disk: string }> {
  const disk = join(tmpdir(), `shared-${performance.now()}.qcow2`);
  await run(['qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M']);
  const drive = `file=${disk},format=qcow2,if=none,id=shared,file.locking=on`;
  return { disk, guest: ['-drive', drive, '-device', 'virtio-blk-pci,drive=shared'] };
}

/** This QEMU writes to the disk and reads it, and nobody else can. */
export async function diskBelongsTo({ qmp }: QemuProcess, disk: string): Promise<void> {
  const io = (command: string): Promise<unknown> =>
    qmp.execute('human-monitor-command', { 'command-line': `qemu-io shared "${command}"` });
  expect(await io('write -P 0x5a 0 64k')).not.toMatch(/error|failed/i);
  expect(await io('read -P 0x5a 0 64k')).not.toMatch(/error|failed/i);
  await expect(run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 512', disk])).rejects.toThrow(/lock/);
}
