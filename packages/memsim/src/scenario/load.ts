/** Scenarios and sweeps from files; what they name is found beside them. */
import { dirname, resolve } from 'node:path';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { parseGuestFile } from '../guest-file/parse.ts';
import { readText, UnreadableText } from '../read-text.ts';
import { parseTrace, type Trace } from '../workload/trace.ts';
import { ScenarioError } from './errors.ts';
import { parseScenario, parseSweep, type Scenario, type Surroundings, type SweepRun } from './parse.ts';
import type { SweepFile } from './schema.ts';

const MAX_FILE = 4 * 1024 ** 2;
/** A trace of the most lines that there may be. */
const MAX_TRACE = 512 * 1024 ** 2;

/** @throws ScenarioError, GuestFileError */
export function loadScenario(path: string): Scenario {
  return parseScenario(read(path, 'scenario', MAX_FILE), path, beside(path));
}

/** @throws ScenarioError, GuestFileError */
export function loadSweep(path: string): {
  readonly name: string;
  readonly file: SweepFile;
  readonly runs: readonly SweepRun[];
} {
  return parseSweep(read(path, 'sweep', MAX_FILE), path, beside(path));
}

function beside(path: string): Surroundings {
  const folder = dirname(resolve(path));
  /** Of guests from files, by name: their traces lie beside them. */
  const folders = new Map<string, string>();
  /** By file and the guest's pages: a sweep names a guest once for each of its runs. */
  const traces = new Map<string, Trace>();
  return {
    guestFile: (file) => {
      const absolute = resolve(folder, file);
      const guest = parseGuestFile(read(absolute, 'guest file', MAX_FILE), absolute);
      folders.set(guest.name, dirname(absolute));
      return guest;
    },
    trace: (file, guest) => {
      const absolute = resolve(folders.get(guest.name) ?? folder, file);
      const pages = guest.memory / PAGE_BYTES;
      const key = `${pages} ${absolute}`;
      const parsed = traces.get(key) ?? parseTrace(read(absolute, 'trace', MAX_TRACE), pages, absolute);
      traces.set(key, parsed);
      return parsed;
    },
  };
}

function read(path: string, what: string, most: number): string {
  try {
    return readText(path, most);
  } catch (cause) {
    if (!(cause instanceof UnreadableText)) throw cause;
    throw new ScenarioError(
      `cannot read the ${what} ${path}: ${cause.message}`,
      'Check the path and its permissions.',
      { cause },
    );
  }
}
