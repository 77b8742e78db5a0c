import type { RamBlock } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { locateBlocks, parseFlatView, parseHostAddress } from '@vmferry/hypervisor/qemu/inspect/memory-map';
import { parseHostAddresses } from '@vmferry/hypervisor/qemu/inspect/ram-blocks';
import type { QmpExecutor } from '@vmferry/hypervisor/qemu/qmp/schema';
import { expect, test } from 'vitest';

/** QEMU 7.2, 4 GiB in two nodes, with KVM. */
const FLAT = `FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, ram): not this

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): mem0 KVM
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000fffff (prio 0, rom): mem0 @00000000000c0000 KVM
  0000000000100000-000000007fffffff (prio 0, ram): mem0 @0000000000100000 KVM
  0000000080000000-00000000bfffffff (prio 0, ram): mem1 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  0000000100000000-000000013fffffff (prio 0, ram): mem1 @0000000040000000 KVM

`;
const OLD = `              Block Name    PSize              Offset               Used              Total
                    mem0    4 KiB  0x0000000000000000 0x0000000080000000 0x0000000080000000
`;
/** QEMU 9: with the host's address. */
const NEW = `              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000000000 0x0000000020000000 0x0000000020000000 0x00007f0140000000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000020080000 0x0000000000020000 0x0000000000200000 0x00007f01a3e00000  ro
           with a space    2 MiB  0x0000000020080000 0x0000000000020000 0x0000000000200000 0x00007f01a4e00000  rw
`;

const block = (name: string): RamBlock => ({ name, bytes: bytes(4096), hostPageBytes: bytes(4096) });

function monitor(answers: (line: string) => string): QmpExecutor {
  return {
    execute: (_command: string, args?: Readonly<Record<string, unknown>>) =>
      Promise.resolve(answers(String(args?.['command-line']))),
  } as QmpExecutor;
}

const hva = (bases: Readonly<Record<string, number>>) => (line: string) => {
  if (line === 'info ramblock') return OLD;
  if (line === 'info mtree -f') return FLAT;
  const at = Number.parseInt(line.split(' ')[1]!, 16);
  const range = parseFlatView(FLAT).find(({ start }) => start === at)!;
  const address = (bases[range.region] ?? 0) + range.offset;
  return `Host virtual address for 0x${at.toString(16)} (${range.region}) is 0x${address.toString(16)}\r\n`;
};

test('the flat view tells which part of which block the guest sees where', () => {
  expect(parseFlatView(FLAT)).toEqual([
    { start: 0, region: 'mem0', offset: 0 },
    { start: 0xc0000, region: 'mem0', offset: 0xc0000 },
    { start: 0x100000, region: 'mem0', offset: 0x100000 },
    { start: 0x80000000, region: 'mem1', offset: 0 },
    { start: 0xfd000000, region: 'vga.vram', offset: 0 },
    { start: 0x100000000, region: 'mem1', offset: 0x40000000 },
  ]);
  expect(parseFlatView('')).toEqual([]);
});

test('QEMU from 8 on tells the addresses itself, older ones do not', () => {
  expect([...parseHostAddresses(NEW)]).toEqual([
    ['pc.ram', 0x7f0140000000],
    ['/rom@etc/acpi/tables', 0x7f01a3e00000],
    ['with a space', 0x7f01a4e00000],
  ]);
  expect(parseHostAddresses(OLD).size).toBe(0);
});

test('an address counts only for the region that was meant', () => {
  const text = 'Host virtual address for 0x100000 (pc.ram) is 0x7f352ff00000\r\n';
  expect(parseHostAddress(text, 'pc.ram')).toBe(0x7f352ff00000);
  expect(parseHostAddress(text, 'mem0')).toBeUndefined();
  expect(parseHostAddress('No memory is mapped at address 0x0\r\n', 'pc.ram')).toBeUndefined();
});

test('blocks are found by their stretches, which have to agree', async () => {
  const bases = { mem0: 0x7f0000000000, mem1: 0x7f1000000000, 'vga.vram': 0x7f2000000000 };
  const blocks = [block('mem0'), block('mem1'), block('pc.bios')];
  expect([...(await locateBlocks(monitor(hva(bases)), blocks))]).toEqual([
    ['mem0', bases.mem0],
    ['mem1', bases.mem1],
  ]);
  const split = (line: string) =>
    line === 'gpa2hva 0x100000000'
      ? 'Host virtual address for 0x100000000 (mem1) is 0x1000'
      : hva(bases)(line);
  expect([...(await locateBlocks(monitor(split), blocks)).keys()]).toEqual(['mem0']);
  const told = monitor((line) => (line === 'info ramblock' ? NEW : ''));
  expect([...(await locateBlocks(told, [block('pc.ram')]))]).toEqual([['pc.ram', 0x7f0140000000]]);
});
