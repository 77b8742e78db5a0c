/** The records of RAM, as both directions use them: RAM section headers, page records, ends of sections. */
import { PAGE_BYTES } from '@vmferry/engine/units';
import { PAGE_BITS, RAM_FLAGS_MASK, RamFlag, RecordType } from './format.ts';

/** Page numbers above the low half of a word: its high half is a page number divided by this. */
const PAGES_OF_LOW_HALF = 2 ** (32 - PAGE_BITS);

export const SECTION_HEADER_BYTES = 5;
/** The closing word and the footer. */
export const SECTION_CLOSE_BYTES = 8 + 5;
export const PAGE_RECORD_BYTES = 8 + PAGE_BYTES;
export const ZERO_RECORD_BYTES = 8 + 1;

/** Each writes at `at` and returns where the next byte belongs. */
export function writeSectionHeader(out: Buffer, at: number, type: number, sectionId: number): number {
  out[at] = type;
  return out.writeUInt32BE(sectionId, at + 1);
}

export function writeWord(out: Buffer, at: number, page: number, flags: number): number {
  const high = (page / PAGES_OF_LOW_HALF) >>> 0;
  const low = ((page << PAGE_BITS) | flags) >>> 0;
  out[at] = high >>> 24;
  out[at + 1] = high >>> 16;
  out[at + 2] = high >>> 8;
  out[at + 3] = high;
  out[at + 4] = low >>> 24;
  out[at + 5] = low >>> 16;
  out[at + 6] = low >>> 8;
  out[at + 7] = low;
  return at + 8;
}

/** `writeWord` for pages by the thousand, whose numbers have 32 bits. */
export function putWord(out: DataView, at: number, page: number, flags: number): number {
  out.setUint32(at, page >>> (32 - PAGE_BITS));
  out.setUint32(at + 4, (page << PAGE_BITS) | flags);
  return at + 8;
}

export function writeName(out: Buffer, at: number, name: Uint8Array): number {
  out[at] = name.length;
  out.set(name, at + 1);
  return at + 1 + name.length;
}

export function writeSectionClose(out: Buffer, at: number, sectionId: number): number {
  const footer = writeWord(out, at, 0, RamFlag.endOfSection);
  out[footer] = RecordType.footer;
  return out.writeUInt32BE(sectionId, footer + 1);
}

/** A RAM end section without pages. */
export function ramEndSection(sectionId: number): Buffer {
  const out = Buffer.alloc(SECTION_HEADER_BYTES + SECTION_CLOSE_BYTES);
  writeSectionClose(out, writeSectionHeader(out, 0, RecordType.sectionEnd, sectionId), sectionId);
  return out;
}

/** Page number of the word at `at`: exact, as a word has 52 bits of it. */
export function pageOfWord(buf: Uint8Array, at: number): number {
  const high = buf[at]! * 0x1000000 + ((buf[at + 1]! << 16) | (buf[at + 2]! << 8) | buf[at + 3]!);
  const low = (buf[at + 4]! << 12) | (buf[at + 5]! << 4) | (buf[at + 6]! >>> 4);
  return high * PAGES_OF_LOW_HALF + low;
}

export function flagsOfWord(buf: Uint8Array, at: number): number {
  return ((buf[at + 6]! << 8) | buf[at + 7]!) & RAM_FLAGS_MASK;
}
