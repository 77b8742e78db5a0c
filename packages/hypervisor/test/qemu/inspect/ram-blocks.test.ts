import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseRamBlocks } from '../../../src/qemu/inspect/ram-blocks.ts';

const header6 =
  '              Block Name    PSize              Offset               Used              Total\n';
const header8 = `${header6.trimEnd()}                HVA  RO\n`;

describe('the list of RAM blocks', () => {
  it('is read as QEMU 6 and 7 print it, longer names than the column included', () => {
    const text = `${header6}\
                  pc.ram    2 MiB  0x0000000000000000 0x0000000010000000 0x0000000010000000\r
    /rom@etc/acpi/tables    4 KiB  0x0000000010280000 0x0000000000020000 0x0000000000200000\r
0000:00:02.0/virtio-net-pci.rom    4 KiB  0x0000000010080000 0x0000000000040000 0x0000000000040000\r
                 hugemem    1 GiB  0x0000000080000000 0x0000000080000000 0x0000000080000000\r
`;
    expect(parseRamBlocks(text)).toEqual([
      { name: 'pc.ram', bytes: 256 << 20, hostPageBytes: 2 << 20 },
      { name: '/rom@etc/acpi/tables', bytes: 128 << 10, hostPageBytes: 4096 },
      { name: '0000:00:02.0/virtio-net-pci.rom', bytes: 256 << 10, hostPageBytes: 4096 },
      { name: 'hugemem', bytes: 2 * 1024 ** 3, hostPageBytes: 1024 ** 3 },
    ]);
  });

  it('is read as QEMU 8 to 10 print it, with host address and access', () => {
    const text = `${header8}\
                  pc.ram    4 KiB  0x0000000000000000 0x0000000400000000 0x0000000400000000 0x00007f12ebe00000  rw
   0000:00:02.0/vga.vram   64 KiB  0x0000000080080000 0x0000000001000000 0x0000000001000000 0x00007f12e2e00000  ro
`;
    expect(parseRamBlocks(text)).toEqual([
      { name: 'pc.ram', bytes: 16 * 1024 ** 3, hostPageBytes: 4096 },
      { name: '0000:00:02.0/vga.vram', bytes: 16 << 20, hostPageBytes: 64 << 10 },
    ]);
  });

  it('leaves out blocks without a name, which no migration carries', () => {
    const text = `${header8}                            4 KiB  0x0000000081080000 0x0000000000010000 0x0000000000010000 0x00007f12e2400000  rw\n`;
    expect(parseRamBlocks(text)).toEqual([]);
  });

  it('is empty for a machine without memory', () => {
    expect(parseRamBlocks(header8)).toEqual([]);
  });

  it('comes back for any name, also one that looks like numbers or holds spaces', () => {
    const word = fc.stringMatching(/^[!-~]{1,20}$/);
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 4 }).map((words) => words.join(' ')),
        fc.nat(),
        fc.constantFrom(['4 KiB', 4096], ['2 MiB', 2 << 20], ['512 B', 512] as const),
        fc.boolean(),
        (name, used, [size, hostPageBytes], recent) => {
          const hex = (n: number): string => `0x${n.toString(16).padStart(16, '0')}`;
          const tail = recent ? ` ${hex(7)}  rw` : '';
          const row = `${name.padStart(24)} ${String(size).padStart(8)}  ${hex(0)} ${hex(used)} ${hex(used)}${tail}`;
          expect(parseRamBlocks(`${recent ? header8 : header6}${row}\n`)).toEqual([
            { name, bytes: used, hostPageBytes },
          ]);
        },
      ),
    );
  });

  it.each([
    ['an unknown command', 'unknown command: info ramblock\n'],
    ['nothing', ''],
    ['an unknown line', `${header8}pc.ram 4096 0 1 2\n`],
  ])('is refused when it is %s', (_, text) => {
    expect(() => parseRamBlocks(text)).toThrow(expect.objectContaining({ code: 'E_UNSUPPORTED' }));
  });
});
