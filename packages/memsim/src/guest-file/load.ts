/** Guests by name from the library, or from files, with the traces that they name. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { PAGE_BYTES } from '@vmferry/engine/units';
import type { GuestDefinition } from '../workload/streams.ts';
import { parseTrace, type Trace } from '../workload/trace.ts';
import { GuestFileError } from './errors.ts';
import { libraryGuest, libraryNames } from './library.ts';
import { parseGuestFile } from './parse.ts';
import type { Workload } from './schema.ts';

/** Whether the text names a file rather than a guest of the library: "./web.yaml", "guests/web", "web.yaml". */
export function isGuestPath(text: string): boolean {
  return text.includes('/') || /\.(ya?ml|json)$/.test(text);
}

/**
 * `guest`: a name of the library, or a file relative to `directory`.
 *
 * @throws GuestFileError
 */
export async function loadGuest(guest: string, directory: string): Promise<GuestDefinition> {
  if (!isGuestPath(guest)) {
    const file = libraryGuest(guest);
    if (file) return { file, traces: {} };
    throw new GuestFileError(
      `the library has no guest "${guest}"; it has ${libraryNames.join(', ')}`,
      'Name one of these, or a guest file, as in ./web.yaml.',
    );
  }
  const path = resolve(directory, guest);
  const file = parseGuestFile(await read(path, 'guest file'), path);
  const traces: Record<string, Trace> = {};
  for (const name of tracesOf(file.workload)) {
    const trace = resolve(dirname(path), name);
    traces[name] = parseTrace(await read(trace, 'trace'), file.memory / PAGE_BYTES, trace);
  }
  return { file, traces };
}

function tracesOf(workload: Workload): string[] {
  switch (workload.kind) {
    case 'trace':
      return [workload.file];
    case 'mix':
      return workload.parts.flatMap(tracesOf);
    case 'phases':
      return workload.phases.flatMap(({ workload: inner }) => tracesOf(inner));
    default:
      return [];
  }
}

async function read(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error && 'code' in cause ? cause.code : cause;
    throw new GuestFileError(
      `cannot read the ${what} ${path}: ${why === 'ENOENT' ? 'there is no such file' : String(why)}`,
      'Check the path and its permissions.',
      { cause },
    );
  }
}
