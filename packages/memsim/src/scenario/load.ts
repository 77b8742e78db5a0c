/** Scenarios and sweeps from files; what they name is found beside them. */
import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { parseGuestFile } from '../guest-file/parse.ts';
import { parseTrace, type Trace } from '../workload/trace.ts';
import { ScenarioError } from './errors.ts';
import { parseScenario, parseSweep, type Scenario, type Surroundings, type SweepRun } from './parse.ts';
import type { SweepFile } from './schema.ts';

const MAX_FILE = 64 * 1024 * 1024;

/** @throws ScenarioError, GuestFileError */
export function loadScenario(path: string): Scenario {
  return parseScenario(read(path), path, beside(path));
}

/** @throws ScenarioError, GuestFileError */
export function loadSweep(path: string): {
  readonly name: string;
  readonly file: SweepFile;
  readonly runs: readonly SweepRun[];
} {
  return parseSweep(read(path), path, beside(path));
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
      const guest = parseGuestFile(read(absolute), absolute);
      folders.set(guest.name, dirname(absolute));
      return guest;
    },
    trace: (file, guest) => {
      const absolute = resolve(folders.get(guest.name) ?? folder, file);
      const pages = guest.memory / PAGE_BYTES;
      const key = `${pages} ${absolute}`;
      const parsed = traces.get(key) ?? parseTrace(read(absolute), pages, absolute);
      traces.set(key, parsed);
      return parsed;
    },
  };
}

function read(path: string): string {
  try {
    if (statSync(path).size > MAX_FILE)
      throw new ScenarioError(`${path} is bigger than 64 MiB`, 'Check the path.');
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof ScenarioError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ScenarioError(`${path} cannot be read: ${why}`, 'Check the path and who may read it.', {
      cause,
    });
  }
}
