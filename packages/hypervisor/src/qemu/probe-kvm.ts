/** Whether KVM runs guests here. That /dev/kvm exists and opens does not say so: a guest has to run on it. */
import { spawn } from 'node:child_process';
import { access, constants, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '@vmferry/engine/errors';

export type KvmProbe = { readonly usable: true } | { readonly usable: false; readonly why: string };

export interface KvmProbeOptions {
  /** Default `qemu-system-x86_64`. */
  readonly binary?: string;
  /** How long the guest may take; KVM needs some 300 ms for it. Default 2000. */
  readonly timeoutMs?: number;
  /** Default `/dev/kvm`. */
  readonly device?: string;
  /** Default `kvm`. */
  readonly accelerator?: 'kvm' | 'tcg';
}

/**
 * Boots a guest of one sector through QEMU's BIOS: it goes to protected mode and writes 0x2a to the debug-exit
 * port, which ends QEMU with status 85. Never hangs, never rejects.
 */
export async function probeKvm(options: KvmProbeOptions = {}): Promise<KvmProbe> {
  const device = options.device ?? '/dev/kvm';
  try {
    await access(device, constants.R_OK | constants.W_OK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return { usable: false, why: missing ? `there is no ${device}` : `${device} may not be opened` };
  }
  const dir = await mkdtemp(join(tmpdir(), 'vmferry-kvm-'));
  try {
    const image = join(dir, 'sector.img');
    await writeFile(image, bootSector());
    return await boot(image, options);
  } catch (error) {
    return { usable: false, why: messageOf(error) };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const DEBUG_EXIT_STATUS = (0x2a << 1) | 1;

function boot(image: string, options: KvmProbeOptions): Promise<KvmProbe> {
  const { binary = 'qemu-system-x86_64', timeoutMs = 2000, accelerator = 'kvm' } = options;
  const argv = [
    ...['-machine', 'pc', '-accel', accelerator, '-m', '16', '-nodefaults', '-no-user-config'],
    ...['-display', 'none', '-no-reboot', '-nic', 'none'],
    ...['-drive', `file=${image},format=raw,if=floppy,readonly=on`],
    ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=4'],
  ];
  const child = spawn(binary, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data: Buffer) => {
    said = (said + data.toString()).slice(0, 4096);
  });
  return new Promise((resolve) => {
    const settle = (result: KvmProbe) => {
      clearTimeout(timer);
      // A vCPU that is stuck in the kernel may outlast the signal: nobody waits for that.
      child.kill('SIGKILL');
      child.stderr.destroy();
      child.unref();
      resolve(result);
    };
    const timer = setTimeout(() => {
      settle({ usable: false, why: `a guest of one sector did not boot on it within ${timeoutMs} ms` });
    }, timeoutMs);
    child.once('error', (error) => settle({ usable: false, why: error.message }));
    child.once('close', (code, signal) => {
      if (code === DEBUG_EXIT_STATUS) return settle({ usable: true });
      const last = said.trim().split('\n').at(-1);
      settle({ usable: false, why: last || `QEMU ended with ${code ?? signal}` });
    });
  });
}

function bootSector(): Buffer {
  const sector = Buffer.alloc(512);
  Buffer.from(
    [
      'fa', //             cli
      '31c0 8ed8', //      ds = 0
      '0f0116307c', //     lgdt 0x7c30
      '0f20c0 0c01 0f22c0', // cr0 |= 1
      'ea177c0800', //     ljmp 8:0x7c17
      'b02a e6f4', //      32 bits: outb 0x2a, 0xf4
      'f4 ebfd', //        hlt for ever
    ]
      .join('')
      .replaceAll(' ', ''),
    'hex',
  ).copy(sector);
  sector.writeBigUInt64LE(0x00cf_9a00_0000_ffffn, 0x28); // the second entry of the GDT at 0x20: code, flat
  sector.writeUInt16LE(15, 0x30);
  sector.writeUInt32LE(0x7c20, 0x32);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
