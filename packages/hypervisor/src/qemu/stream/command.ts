import { type BlockIndex, type Bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { StreamError } from './error.ts';
import { Command } from './format.ts';
import type { Intake } from './intake.ts';
import type { BlockTable } from './layout.ts';

/** A command of the source's QEMU. Its bytes follow as opaque ones. */
export type CommandNotice =
  | {
      readonly type: 'command';
      readonly name: 'open-return-path' | 'listen' | 'run' | 'switchover-start' | 'resume';
    }
  | { readonly type: 'command'; readonly name: 'ping'; readonly value: number }
  /** Post-copy may follow. Sizes are absent when only something else than RAM is post-copied. */
  | {
      readonly type: 'command';
      readonly name: 'advise';
      readonly pageSizes?: { readonly hostSummary: Bytes; readonly guest: Bytes };
    }
  | {
      readonly type: 'command';
      readonly name: 'discard';
      readonly blockName: string;
      readonly block: BlockIndex;
      /** [start, length] in bytes. */
      readonly ranges: readonly (readonly [start: Bytes, length: Bytes])[];
    }
  /** The device state follows: this many bytes, with listen and run in it. */
  | { readonly type: 'command'; readonly name: 'packaged'; readonly bytes: Bytes }
  | { readonly type: 'command'; readonly name: 'unknown'; readonly command: number; readonly bytes: Bytes };

function expectLength(command: string, have: number, want: number): void {
  if (have !== want) {
    throw new StreamError(`The ${command} command carries ${have} bytes where it has ${want}.`);
  }
}

/** Reads a command whose payload of `length` bytes is the piece last taken from `input`. */
export function readCommand(
  command: number,
  length: number,
  input: Intake,
  blocks: BlockTable | undefined,
): CommandNotice {
  switch (command) {
    case Command.openReturnPath:
      expectLength('open-return-path', length, 0);
      return { type: 'command', name: 'open-return-path' };
    case Command.listen:
      expectLength('listen', length, 0);
      return { type: 'command', name: 'listen' };
    case Command.run:
      expectLength('run', length, 0);
      return { type: 'command', name: 'run' };
    case Command.resume:
      expectLength('resume', length, 0);
      return { type: 'command', name: 'resume' };
    case Command.switchoverStart:
      return { type: 'command', name: 'switchover-start' };
    case Command.ping:
      expectLength('ping', length, 4);
      return { type: 'command', name: 'ping', value: input.u32() };
    case Command.packaged:
      expectLength('packaged', length, 4);
      return { type: 'command', name: 'packaged', bytes: input.u32() as Bytes };
    case Command.advise:
      if (length === 0) return { type: 'command', name: 'advise' };
      expectLength('advise', length, 16);
      return {
        type: 'command',
        name: 'advise',
        pageSizes: { hostSummary: input.u64() as Bytes, guest: input.u64(8) as Bytes },
      };
    case Command.discard:
      return readDiscard(length, input, blocks);
    default:
      return { type: 'command', name: 'unknown', command, bytes: length as Bytes };
  }
}

/** u8 version 0, u8 length + name, u8 0, then u64 start and u64 length of each range. */
function readDiscard(length: number, input: Intake, blocks: BlockTable | undefined): CommandNotice {
  if (blocks === undefined) throw new StreamError('RAM is discarded before its layout is known.');
  const nameBytes = length >= 3 ? input.u8(1) : 0;
  const rangesAt = 3 + nameBytes;
  if (length < rangesAt + 16 || (length - rangesAt) % 16 !== 0) {
    throw new StreamError(`A discard command of ${length} bytes does not hold whole ranges.`);
  }
  if (input.u8() !== 0 || input.u8(rangesAt - 1) !== 0) {
    throw new StreamError('A discard command has an unknown version or a block name without its end.');
  }
  const blockName = input.text(2, nameBytes);
  const block = blocks.find(blockName);
  const size = blocks.bytesOf(block);
  const ranges: (readonly [Bytes, Bytes])[] = [];
  for (let at = rangesAt; at < length; at += 16) {
    const start = input.u64(at);
    const count = input.u64(at + 8);
    if (start % PAGE_BYTES !== 0 || count % PAGE_BYTES !== 0) {
      throw new StreamError(`A discard in block ${blockName} does not cover whole pages.`);
    }
    if (start + count > size) {
      throw new StreamError(
        `A discard reaches byte ${start + count} of block ${blockName}, which has ${size}.`,
      );
    }
    ranges.push([start as Bytes, count as Bytes]);
  }
  return { type: 'command', name: 'discard', blockName, block, ranges };
}
