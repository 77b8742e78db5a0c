import type { RamLayout } from '@vmferry/engine/guest';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { RamFlag } from './format.ts';
import type { Intake } from './intake.ts';
import { LayoutBuilder } from './layout.ts';
import { nameLength, type PieceOutcome, type PieceReader } from './piece-reader.ts';
import { flagsOfWord, pageOfWord } from './ram-records.ts';

type Step = 'word' | 'name-length' | 'block' | 'after-block' | 'page-size';

/**
 * The content of RAM's first section:
 *
 *     word ─ sizes ─▶ (u8 length, name, u64 size, u64 page size?)* ─▶ word ─ end of section ─▶ done
 *
 * A page size stands only where post-copy was advised and the block's differs from the source host's own.
 * Nothing announces it, but its first byte is always 0 and a name's length never is.
 */
export class RamSetupReader implements PieceReader {
  readonly what = 'RAM setup';
  need = 8;
  #step: Step = 'word';
  #sizes: LayoutBuilder | undefined;
  readonly #hostSummary: number;
  readonly #maxBlocks: number;

  /** `hostSummary`: the page sizes of all blocks or-ed, 0 if post-copy was not advised. */
  constructor(hostSummary: number, maxBlocks: number) {
    this.#hostSummary = hostSummary;
    this.#maxBlocks = maxBlocks;
  }

  /** Undefined if the section told none. */
  layout(): RamLayout | undefined {
    return this.#sizes?.build(this.#hostSummary);
  }

  read(input: Intake): PieceOutcome {
    switch (this.#step) {
      case 'word':
        return this.#readWord(flagsOfWord(input.buf, input.at), pageOfWord(input.buf, input.at) * PAGE_BYTES);
      case 'name-length':
        return this.#then('block', nameLength(input.u8()) + 8);
      case 'block': {
        const length = this.need - 8;
        this.#sizes!.add(input.text(0, length), input.u64(length));
        return this.#sizes!.remaining > 0 ? this.#then('after-block', 1) : this.#then('word', 8);
      }
      case 'after-block':
        return input.u8() > 0 ? this.#then('block', input.u8() + 8) : this.#then('page-size', 7);
      default: {
        const size = ((input.u8() << 16) | (input.u8(1) << 8) | input.u8(2)) * 2 ** 32 + input.u32(3);
        if (this.#sizes!.setPageBytes(size, this.#hostSummary)) return this.#then('name-length', 1);
        return { verbatim: 'the RAM layout has words that are not page sizes' };
      }
    }
  }

  #readWord(flags: number, address: number): PieceOutcome {
    if (flags === RamFlag.endOfSection) return 'done';
    if (flags === RamFlag.sizes && this.#sizes === undefined) {
      this.#sizes = new LayoutBuilder(address, this.#maxBlocks);
      return this.#then('name-length', 1);
    }
    // The last block's page size: no record has a word without flags.
    if (flags === 0 && this.#sizes?.setPageBytes(address, this.#hostSummary) === true) return 'more';
    return { verbatim: `the RAM setup has a word with flags 0x${flags.toString(16)}` };
  }

  #then(step: Step, need: number): 'more' {
    this.#step = step;
    this.need = need;
    return 'more';
  }
}
