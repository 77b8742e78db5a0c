/**
 * A part or the end of the RAM section, whose framing is not passed on:
 *
 *     section id ─▶ word ─ page ─▶ block name? ─▶ 4096 bytes ─▶ word
 *                   word ─ fill ─▶ block name? ─▶ byte ───────▶ word
 *                   word ─ end of section ─▶ footer ─▶ done
 */
import { PAGE_BYTES } from '@vmferry/engine/units';
import { StreamError } from './error.ts';
import { MAX_NAME_BYTES, RamFlag, RecordType } from './format.ts';
import type { Intake } from './intake.ts';
import type { PageReader } from './page-reader.ts';
import { nameLength } from './piece-reader.ts';
import {
  flagsOfWord,
  pageOfWord,
  SECTION_HEADER_BYTES,
  writeName,
  writeSectionHeader,
  writeWord,
} from './ram-records.ts';

/** A record that is not understood, in the midst of a section whose header was swallowed. */
export interface RefusedRecord {
  readonly why: string;
  /** What takes the place of the bytes that were read. */
  readonly prelude: Uint8Array;
  /** Does the prelude name the record's block itself? */
  readonly namesBlock: boolean;
}

/** `starved`: the input does not reach. `more`: go on. `done`: the section is over. */
export type SectionOutcome = 'starved' | 'more' | 'done' | RefusedRecord;

type Step = 'id' | 'word' | 'block-length' | 'block' | 'page' | 'fill' | 'footer';

export class RamSectionReader {
  readonly sectionId: number;
  type: number = RecordType.sectionPart;
  readonly #pages: PageReader;
  #step: Step = 'id';
  #length = 0;
  #page = 0;
  #kind = 0;

  constructor(sectionId: number, pages: PageReader) {
    this.sectionId = sectionId;
    this.#pages = pages;
  }

  /** The type byte was read. */
  begin(type: number): void {
    this.type = type;
    this.#step = 'id';
  }

  /** Reads a piece, or a run of pages until a batch is out. */
  step(input: Intake): SectionOutcome {
    switch (this.#step) {
      case 'word':
        if (this.#pages.readRun(input)) return 'more';
        return input.take(8) ? this.#readWord(input) : 'starved';
      case 'page':
        if (!input.take(PAGE_BYTES)) return 'starved';
        this.#pages.addRaw(this.#page, input.buf, input.at);
        return this.#then('word');
      case 'fill':
        if (!input.take(1)) return 'starved';
        this.#pages.addFilled(this.#page, input.u8());
        return this.#then('word');
      case 'block-length':
        if (!input.take(1)) return 'starved';
        this.#length = nameLength(input.u8());
        return this.#then('block');
      case 'block':
        if (!input.take(this.#length)) return 'starved';
        this.#pages.selectBlock(input.text(0, this.#length));
        return this.#then(this.#kind === RamFlag.page ? 'page' : 'fill');
      case 'id':
        if (!input.take(4)) return 'starved';
        if (input.u32() !== this.sectionId) {
          throw new StreamError(`Section ${input.u32()} goes on but is not open.`);
        }
        return this.#then('word');
      default:
        if (!input.take(5)) return 'starved';
        checkFooter(input, this.sectionId);
        return 'done';
    }
  }

  #then(step: Step): 'more' {
    this.#step = step;
    return 'more';
  }

  #readWord(input: Intake): SectionOutcome {
    const flags = flagsOfWord(input.buf, input.at);
    const page = pageOfWord(input.buf, input.at);
    if (flags === RamFlag.endOfSection) {
      this.#pages.flush();
      return this.#then('footer');
    }
    const kind = flags & ~RamFlag.sameBlock;
    if (kind !== RamFlag.page && kind !== RamFlag.fill) return this.#refuse(flags, page, input);
    this.#page = page;
    this.#kind = kind;
    if (kind === flags) return this.#then('block-length');
    this.#requireBlock();
    return this.#then(kind === RamFlag.page ? 'page' : 'fill');
  }

  #requireBlock(): void {
    if (!this.#pages.hasBlock) throw new StreamError('The first page of the stream names no block.');
  }

  #refuse(flags: number, page: number, input: Intake): RefusedRecord {
    const prelude = Buffer.alloc(SECTION_HEADER_BYTES + 9 + MAX_NAME_BYTES);
    let end = writeSectionHeader(prelude, 0, this.type, this.sectionId);
    const kind = flags & ~RamFlag.sameBlock;
    const ofPage = kind === RamFlag.xbzrle || kind === RamFlag.zlib;
    if (ofPage && kind !== flags) {
      // It leans on the block of a record that was swallowed: name the block.
      this.#requireBlock();
      end = writeWord(prelude, end, page, kind);
      end = writeName(prelude, end, Buffer.from(this.#pages.blockName, 'latin1'));
    } else {
      end += input.buf.copy(prelude, end, input.at, input.at + 8);
    }
    const what = kind === RamFlag.xbzrle ? 'XBZRLE' : kind === RamFlag.zlib ? 'compressed' : 'unknown';
    return {
      why: `RAM has ${what} records (flags 0x${flags.toString(16)})`,
      prelude: prelude.subarray(0, end),
      namesBlock: ofPage,
    };
  }
}

/** Checks the footer in the piece last taken. */
export function checkFooter(input: Intake, sectionId: number): void {
  if (input.u8() !== RecordType.footer || input.u32(1) !== sectionId) {
    throw new StreamError('The RAM section ends without its footer.');
  }
}
