/**
 * A guest in a 64 KiB ROM. For ever, it goes over the pages between 1 MiB and `top`, adds 1 to the first byte
 * of each and writes the page's address at offset 4; after each pass it writes a letter on the serial port.
 */

const GUEST_FROM = 0x100000;
const ROM_BYTES = 0x10000;
const ROM_BASE = 0xf0000;
const GDT_AT = 0x80;
const GDT_POINTER_AT = 0x98;
const PROTECTED_AT = 0x40;

export function guestRom(top: number): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  const put = (at: number, ...hex: string[]): void => {
    rom.write(hex.join('').replaceAll(' ', ''), at, 'hex');
  };
  const le32 = (n: number): string => {
    const out = Buffer.alloc(4);
    out.writeUInt32LE(n);
    return out.toString('hex');
  };
  put(0xfff0, 'ea 0000 00f0'); // jmp f000:0000
  put(
    0,
    'fa', // cli
    '2e 0f0116 9800', // lgdt cs:[GDT_POINTER_AT]
    '0f20c0 0c01 0f22c0', // set the protected mode bit of cr0
    `66 ea ${le32(ROM_BASE + PROTECTED_AT)} 0800`, // jmp 8:PROTECTED_AT
  );
  put(
    PROTECTED_AT,
    '66b81000 8ed8 8ec0', // ds = es = 16
    `be ${le32(GUEST_FROM)}`, // pass: esi = from
    'fe06', // page: inc byte [esi]
    '897604', // mov [esi+4], esi
    `81c6 ${le32(0x1000)}`, // add esi, 4096
    `81fe ${le32(top)}`, // cmp esi, top
    '72ed', // jb page
    '66baf803 b041 ee', // out 3f8, 'A'
    'ebdf', // jmp pass
  );
  put(GDT_AT, '0000000000000000', 'ffff0000009acf00', 'ffff00000092cf00');
  put(GDT_POINTER_AT, '1700', le32(ROM_BASE + GDT_AT));
  return rom;
}

/** What is wrong with a memory image of the guest, if anything is. */
export function guestFault(memory: Buffer, top: number): string | undefined {
  const first = memory[GUEST_FROM]!;
  let stepped = false;
  for (let at = GUEST_FROM; at < top; at += 4096) {
    if (memory.readUInt32LE(at + 4) !== at) return `page ${at} holds ${memory.readUInt32LE(at + 4)}`;
    // One pass is under way: pages before it are one ahead of those behind it.
    const behind = memory[at] !== first;
    if (behind && ((memory[at]! + 1) & 0xff) !== first)
      return `page ${at} is at ${memory[at]}, the first at ${first}`;
    if (stepped && !behind) return `page ${at} is ahead of the pages before it`;
    stepped = behind;
  }
  return undefined;
}
