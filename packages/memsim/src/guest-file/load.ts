/** Guests by name from the library, or from files, with the traces that they name. */
import { dirname, resolve } from 'node:path';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { readText, UnreadableText } from '../read-text.ts';
import type { GuestDefinition } from '../workload/streams.ts';
import { parseTrace, type Trace } from '../workload/trace.ts';
import { GuestFileError } from './errors.ts';
import { libraryGuest, libraryNames } from './library.ts';
import { parseGuestFile } from './parse.ts';
import type { Workload } from './schema.ts';

const MAX_GUEST_FILE = 1024 ** 2;
/** A trace of the most lines that there may be. */
const MAX_TRACE = 512 * 1024 ** 2;

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
  const file = parseGuestFile(read(path, 'guest file', MAX_GUEST_FILE), path);
  const traces: Record<string, Trace> = {};
  for (const name of tracesOf(file.workload)) {
    const trace = resolve(dirname(path), name);
    traces[name] = parseTrace(read(trace, 'trace', MAX_TRACE), file.memory / PAGE_BYTES, trace);
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

function read(path: string, what: string, most: number): string {
  try {
    return readText(path, most);
  } catch (cause) {
    if (!(cause instanceof UnreadableText)) throw cause;
    throw new GuestFileError(
      `cannot read the ${what} ${path}: ${cause.message}`,
      'Check the path and its permissions.',
      { cause },
    );
  }
}
