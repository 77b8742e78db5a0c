/** From a guest file's text to what it says, with the line of everything that is wrong in it. */
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { GuestFileError } from './errors.ts';
import { type GuestFile, guestFileSchema } from './schema.ts';

const MAX_TEXT = 1024 * 1024;
const MAX_ALIASES = 100;

/**
 * YAML or JSON. `file` is for messages.
 *
 * @throws GuestFileError with all faults in one message
 */
export function parseGuestFile(text: string, file: string): GuestFile {
  if (text.length > MAX_TEXT) throw new GuestFileError(`${file} is bigger than 1 MiB`, 'Check the path.');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const broken = document.errors[0];
  if (broken) throw notYaml(file, broken);
  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    throw notYaml(file, cause);
  }
  const parsed = guestFileSchema.safeParse(content);
  if (parsed.success) return parsed.data;
  const lineOf = (path: readonly PropertyKey[]): string => {
    for (let length = path.length; length > 0; length -= 1) {
      const node: unknown = document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return ` (line ${lines.linePos(node.range[0]).line})`;
    }
    return '';
  };
  const faults = parsed.error.issues.flatMap((issue) => describe(issue, document, lineOf));
  throw new GuestFileError(
    `${file}: ${faults.join('; ')}`,
    'Correct these entries; docs/memsim.md has all keys, guest-file.schema.json has them for editors.',
  );
}

function describe(
  issue: z.core.$ZodIssue,
  document: Document,
  lineOf: (path: readonly PropertyKey[]) => string,
): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(
      (key) => `unknown key ${dotted([...issue.path, key])}${lineOf([...issue.path, key])}`,
    );
  }
  if (issue.path.length === 0) return ['a guest file is a list of keys and values'];
  const what = document.hasIn(issue.path) ? wordsOf(issue) : `is missing: ${issue.message}`;
  return [`${dotted(issue.path)}: ${what}${lineOf(issue.path)}`];
}

function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_union' && issue.path.at(-1) === 'kind') {
    return `there is no such kind of workload; there are ${KINDS.join(', ')}`;
  }
  return issue.message;
}

const KINDS = [
  'idle',
  'uniform',
  'zipf',
  'sequential',
  'strided',
  'hot-and-cold',
  'phases',
  'moving',
  'fork-bursts',
  'read-mostly',
  'trace',
  'mix',
] as const satisfies readonly GuestFile['workload']['kind'][];

function dotted(keys: readonly PropertyKey[]): string {
  return keys
    .map((key, index) => (typeof key === 'number' ? `[${key}]` : `${index === 0 ? '' : '.'}${String(key)}`))
    .join('');
}

function notYaml(file: string, cause: unknown): GuestFileError {
  const why = cause instanceof Error ? cause.message.trim() : String(cause);
  return new GuestFileError(`${file}: ${why}`, 'Correct the file: it is YAML or JSON.', { cause });
}
