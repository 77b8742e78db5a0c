import { StreamError } from './error.ts';
import { PAGE_BITS } from './format.ts';
import type { Intake } from './intake.ts';
import { nameLength, type PieceOutcome, type PieceReader } from './piece-reader.ts';

const MAX_MACHINE_NAME = 4096;

/** u32 length, machine name. */
export class ConfigurationReader implements PieceReader {
  readonly what = 'configuration';
  need = 4;
  #named = false;

  read(input: Intake): PieceOutcome {
    if (this.#named) return 'done';
    this.need = input.u32();
    if (this.need > MAX_MACHINE_NAME)
      throw new StreamError(`A machine name of ${this.need} bytes is not sane.`);
    this.#named = true;
    return 'more';
  }
}

type Step =
  | 'length'
  | 'name'
  | 'page-bits'
  | 'capability-count'
  | 'capability-length'
  | 'capability'
  | 'uuid';

/**
 * u8 length + name, u32 version, then what the name says. QEMU has three: the page's bits, those of the
 * capabilities in force that change the stream itself, and the guest's UUID.
 */
export class SubsectionReader implements PieceReader {
  readonly what = 'configuration subsection';
  need = 1;
  #step: Step = 'length';

  read(input: Intake): PieceOutcome {
    switch (this.#step) {
      case 'length':
        return this.#then('name', nameLength(input.u8()) + 4);
      case 'name':
        return this.#readName(input);
      case 'page-bits':
        if (input.u32() === PAGE_BITS) return 'done';
        return { verbatim: `the guest's pages have ${input.u32()} bits` };
      case 'capability-count':
        return input.u32() === 0 ? 'done' : this.#then('capability-length', 1);
      case 'capability-length':
        return this.#then('capability', nameLength(input.u8()));
      case 'capability':
        return { verbatim: `the capability ${input.text(0, this.need)} changes the stream` };
      default:
        return 'done';
    }
  }

  #readName(input: Intake): PieceOutcome {
    const name = input.text(0, this.need - 4);
    if (input.u32(this.need - 4) === 1) {
      if (name === 'configuration/target-page-bits') return this.#then('page-bits', 4);
      if (name === 'configuration/capabilities') return this.#then('capability-count', 4);
      if (name === 'configuration/uuid') return this.#then('uuid', 16);
    }
    return { verbatim: `the configuration has an unknown part, ${name}` };
  }

  #then(step: Step, need: number): 'more' {
    this.#step = step;
    this.need = need;
    return 'more';
  }
}
