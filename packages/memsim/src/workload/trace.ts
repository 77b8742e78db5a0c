/** A recorded workload: lines of "MILLISECONDS PAGE r|w", in order of time. "#" begins a comment. */
import { GuestFileError } from '../guest-file/errors.ts';

/** One kind of access, in order of time. Shared memory: every vCPU's thread reads it. */
export interface Recording {
  /** Milliseconds of the workload's clock. */
  readonly times: Float64Array;
  readonly pages: Uint32Array;
  /** Of each access, the index of the one before it to the same page, or -1. */
  readonly before: Int32Array;
}

export interface Trace {
  readonly reads: Recording;
  readonly writes: Recording;
}

const MAX_LINES = 10_000_000;
const LINE = /^(\d+(?:\.\d+)?)[ \t,]+(\d+)[ \t,]+([rw])$/;

/**
 * `pages`: how many the guest has. `file` is for messages.
 *
 * @throws GuestFileError with the line that is wrong
 */
export function parseTrace(text: string, pages: number, file: string): Trace {
  const reads = { times: [] as number[], pages: [] as number[] };
  const writes = { times: [] as number[], pages: [] as number[] };
  const wrong = (line: number, what: string): GuestFileError =>
    new GuestFileError(
      `${file}: line ${line}: ${what}`,
      'A trace has lines of "MILLISECONDS PAGE r|w", in order of time, as in "12.5 4096 w".',
    );
  let last = 0;
  let number = 0;
  for (const raw of text.split('\n')) {
    number += 1;
    if (number > MAX_LINES) throw wrong(number, `a trace has at most ${MAX_LINES} lines`);
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const match = LINE.exec(line);
    if (match === null) throw wrong(number, `${JSON.stringify(line.slice(0, 80))} is no access`);
    const time = Number(match[1]);
    const page = Number(match[2]);
    if (time < last) throw wrong(number, `its time, ${time} ms, is before that of the line above`);
    if (page >= pages)
      throw wrong(number, `page ${page} is beyond the guest's memory, which has ${pages} pages`);
    last = time;
    const into = match[3] === 'r' ? reads : writes;
    into.times.push(time);
    into.pages.push(page);
  }
  return { reads: shared(reads), writes: shared(writes) };
}

function shared({ times, pages }: { times: readonly number[]; pages: readonly number[] }): Recording {
  const recording = {
    times: new Float64Array(new SharedArrayBuffer(times.length * Float64Array.BYTES_PER_ELEMENT)),
    pages: new Uint32Array(new SharedArrayBuffer(pages.length * Uint32Array.BYTES_PER_ELEMENT)),
    before: new Int32Array(new SharedArrayBuffer(pages.length * Int32Array.BYTES_PER_ELEMENT)),
  };
  recording.times.set(times);
  recording.pages.set(pages);
  const last = new Map<number, number>();
  for (const [index, page] of pages.entries()) {
    recording.before[index] = last.get(page) ?? -1;
    last.set(page, index);
  }
  return recording;
}
