import type { GuestDescription, RamBlock } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { asGuestError } from '../qmp/errors.ts';
import {
  cpusReply,
  kvmReply,
  memorySizeReply,
  type QmpExecutor,
  statusReply,
  textReply,
  typed,
  versionReply,
} from '../qmp/schema.ts';
import { readCpu } from './cpu.ts';
import { readSharedMemory } from './file-memory.ts';
import { readNics } from './nics.ts';
import { readRamBlocks } from './ram-blocks.ts';

/**
 * Before QEMU 9.0 its emulator (TCG) forgets, when the dirty log is read a second time, to watch pages again
 * that it has seen written: writes during a second live round are lost (found by trying on 7.2, up to 40
 * pages of a small Linux guest; mended upstream early in 2024). Only the quick way of reading the log is
 * wrong, which is taken for blocks of whole words of its bitmap.
 */
const FIRST_WITH_TCG_DIRTY_LOG = 9;
const BITMAP_WORD_BYTES = 64 * 4096;

/** Firmware and option ROMs are in the same list, and the guest cannot write them. */
function missesWrites({ name, bytes: size }: RamBlock): boolean {
  return size % BITMAP_WORD_BYTES === 0 && !/(^|\/|\.)(rom|bios)(@|$)|^\/rom@/.test(name);
}

/**
 * Reads what a migration must know of a guest, on its source as on its destination. Changes nothing.
 *
 * @throws GuestError
 */
export async function describeGuest(client: QmpExecutor, name: string): Promise<GuestDescription> {
  try {
    const cpusFound = typed(client, 'query-cpus-fast', cpusReply);
    const blocksFound = readRamBlocks(client);
    const [version, kvm, type, cpus, cpu, memory, status, blocks, sharedMemory, nics] = await Promise.all([
      typed(client, 'query-version', versionReply),
      typed(client, 'query-kvm', kvmReply),
      typed(client, 'qom-get', textReply, { path: '/machine', property: 'type' }),
      cpusFound,
      cpusFound.then(([first]) => first && readCpu(client, first['qom-path'])),
      typed(client, 'query-memory-size-summary', memorySizeReply),
      typed(client, 'query-status', statusReply),
      blocksFound,
      blocksFound.then((found) => readSharedMemory(client, found)),
      readNics(client),
    ]);
    const { major, minor, micro } = version.qemu;
    return {
      kind: 'qemu',
      name,
      hypervisorVersion: `QEMU ${major}.${minor}.${micro}`,
      machine: type.replace(/-machine$/, ''),
      vcpus: cpus.length,
      ...(cpu === undefined ? {} : { cpu }),
      memoryBytes: bytes(memory['base-memory'] + memory['plugged-memory']),
      blocks,
      ...(sharedMemory.length === 0 ? {} : { sharedMemory }),
      nics,
      running: status.running,
      oneLiveRound: !kvm.enabled && major < FIRST_WITH_TCG_DIRTY_LOG && blocks.some(missesWrites),
    };
  } catch (error) {
    throw asGuestError(error);
  }
}
