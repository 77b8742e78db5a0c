import { GuestError } from '@vmferry/engine/errors';
import type { GuestDescription, RamBlock } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { compareForMigration } from '../../../src/qemu/inspect/compare.ts';

const block = (name: string, size: number, page = 4096): RamBlock => ({
  name,
  bytes: bytes(size),
  hostPageBytes: bytes(page),
});

const guest: GuestDescription = {
  kind: 'qemu',
  name: 'a',
  hypervisorVersion: 'QEMU 7.2.22',
  machine: 'pc-i440fx-7.2',
  vcpus: 2,
  memoryBytes: bytes(512 << 20),
  blocks: [block('pc.ram', 512 << 20), block('/rom@etc/acpi/tables', 0x20000), block('pc.bios', 0x40000)],
  nics: [],
  running: true,
  oneLiveRound: false,
};

describe('comparing source and destination', () => {
  it('finds nothing between equals, whatever their names, versions, addresses and order of blocks', () => {
    const dest: GuestDescription = {
      ...guest,
      name: 'b',
      hypervisorVersion: 'QEMU 10.0.0',
      running: false,
      blocks: guest.blocks.toReversed(),
    };
    expect(compareForMigration(guest, dest, { postcopy: true })).toEqual([]);
  });

  it('wants every feature of the CPU on the destination, which may have more', () => {
    const cpu = (model: string, ...features: [word: string, bits: number][]): GuestDescription => ({
      ...guest,
      cpu: { model, features: features.map(([word, bits]) => ({ word, bits })) },
    });
    const small = cpu('small', ['1h:ECX', 0x8000_0001]);
    const big = cpu('big', ['1h:ECX', 0xc000_0003], ['7h.0:EBX', 0x20]);
    expect(compareForMigration(small, big, { postcopy: false })).toEqual([]);
    expect(compareForMigration(big, guest, { postcopy: false })).toEqual([]);
    const [lacks, ...others] = compareForMigration(big, small, { postcopy: false });
    expect(others).toEqual([]);
    expect(lacks).toMatchObject({
      code: 'E_GUEST_MISMATCH',
      message: expect.stringMatching(
        /CPU \(small\) lacks .*\(big\) has: CPUID 1h:ECX 0x40000002, 7h\.0:EBX 0x20$/,
      ),
      remedy: expect.stringContaining('-cpu'),
    });
  });

  it('tells every difference at once, with both values and a remedy', () => {
    const dest: GuestDescription = {
      ...guest,
      machine: 'pc-q35-7.2',
      vcpus: 4,
      memoryBytes: bytes(1024 << 20),
      blocks: [
        block('pc.ram', 1024 << 20, 2 << 20),
        block('pc.bios', 0x40001),
        block('0000:00:01.0/vga.vram', 16 << 20),
      ],
    };
    const errors = compareForMigration(guest, dest, { postcopy: true });
    expect(errors.map(({ message }) => message)).toEqual([
      'the machine type differs: pc-i440fx-7.2 on the source, pc-q35-7.2 on the destination',
      'the number of vCPUs differs: 2 on the source, 4 on the destination',
      'the memory size differs: 512 MiB on the source, 1024 MiB on the destination',
      'the size of RAM block pc.ram differs: 512 MiB on the source, 1024 MiB on the destination',
      'the host page size of RAM block pc.ram differs: 4096 bytes on the source, 2 MiB on the destination',
      'RAM block /rom@etc/acpi/tables (131072 bytes) is on the source and not on the destination',
      'the size of RAM block pc.bios differs: 262144 bytes on the source, 262145 bytes on the destination',
      'RAM block 0000:00:01.0/vga.vram (16 MiB) is on the destination and not on the source',
    ]);
    for (const error of errors) {
      expect(error).toBeInstanceOf(GuestError);
      expect(error.code).toBe('E_GUEST_MISMATCH');
      expect(error.remedy).not.toBe('');
    }
  });

  it('minds host pages in post-copy only', () => {
    const dest = { ...guest, blocks: guest.blocks.map((b) => ({ ...b, hostPageBytes: bytes(2 << 20) })) };
    expect(compareForMigration(guest, dest, { postcopy: false })).toEqual([]);
    expect(compareForMigration(guest, dest, { postcopy: true })).toHaveLength(3);
  });

  it('lets generated ROMs differ in size, which the stream brings along', () => {
    const dest = {
      ...guest,
      blocks: [...guest.blocks.toSpliced(1, 1), block('/rom@etc/acpi/tables', 0x40000)],
    };
    expect(compareForMigration(guest, dest, { postcopy: true })).toEqual([]);
  });

  it('does not compare a guest of one kind with another kind', () => {
    expect(compareForMigration(guest, { ...guest, kind: 'sim' }, { postcopy: false })).toHaveLength(1);
  });
});
