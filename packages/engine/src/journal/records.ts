/**
 * The journal: one append-only file for each migration on each side, one line for each record.
 *
 *     {"v":1,"session":…,"guest":…,"role":…,"state":…,"at":…,"sum":"9ae0daaf"}\n
 *
 * `sum` is the CRC-32 of the line without it. A line without its newline was being written when the host
 * or the agent died, and nobody has acted on it, because acting waits for the sync: it counts for nothing.
 * Anything else that cannot be read is damage, and damage is never guessed at. Whoever goes on writing
 * after a torn tail cuts the file to `goodBytes` first.
 */
import { crc32 } from 'node:zlib';
import { z } from 'zod';

const MAX_LINE = 65_536;

/**
 * Source: started, sealed (guest stopped, all state sent), committed (never runs here again by itself),
 * rolling-back (decided), rolled-back (guest runs here again), done (guest runs on the destination).
 */
export const sourceRecordStates = [
  'started',
  'sealed',
  'committed',
  'rolling-back',
  'rolled-back',
  'done',
] as const;
/**
 * Destination: started, ready (loaded, promised to wait), run (commit received), done (all memory here),
 * discarded (never ran here and never will).
 */
export const destRecordStates = ['started', 'ready', 'run', 'done', 'discarded'] as const;

export type SourceRecordState = (typeof sourceRecordStates)[number];
export type DestRecordState = (typeof destRecordStates)[number];

const common = {
  v: z.literal(1),
  /** The session's public id. Never its secret. */
  session: z.string().min(1).max(128),
  guest: z.string().min(1).max(4096),
  /** Whether the guest moves before its memory has, as known when the record was written. */
  mode: z.enum(['precopy', 'postcopy']).optional(),
  /** The peer agent's URL, so that whoever settles the migration can find it. */
  peer: z.string().max(2048).optional(),
  /** Wall clock, milliseconds since the epoch. */
  at: z.number().nonnegative(),
  /** Why, in words. */
  why: z.string().max(4096).optional(),
};

export const journalRecordSchema = z.discriminatedUnion('role', [
  z.strictObject({ ...common, role: z.literal('source'), state: z.enum(sourceRecordStates) }),
  z.strictObject({ ...common, role: z.literal('dest'), state: z.enum(destRecordStates) }),
]);

export type JournalRecord = z.infer<typeof journalRecordSchema>;

/** The journal is damaged somewhere else than at its end, or does not say what a journal says. */
export class JournalError extends Error {
  override readonly name = 'JournalError';
  readonly code = 'E_JOURNAL';
}

export interface ParsedJournal {
  readonly records: readonly JournalRecord[];
  /** The last line was not written to its end. */
  readonly tornTail: boolean;
  /** UTF-8 bytes up to the last good line's end. */
  readonly goodBytes: number;
}

/** One line, with its newline. */
export function encodeRecord(record: JournalRecord): string {
  const text = JSON.stringify(journalRecordSchema.parse(record));
  return `${text.slice(0, -1)},"sum":"${sumOf(text)}"}\n`;
}

/** @throws JournalError when a complete line cannot be read or belongs to another migration than the first */
export function parseJournal(text: string): ParsedJournal {
  const end = text.lastIndexOf('\n') + 1;
  const records: JournalRecord[] = [];
  const lines = text.slice(0, end).split('\n').slice(0, -1);
  for (const [index, line] of lines.entries()) records.push(parseLine(line, index + 1));
  const first = records[0];
  for (const [index, record] of records.entries()) {
    if (record.session !== first?.session || record.role !== first.role || record.guest !== first.guest) {
      throw new JournalError(`line ${index + 1} of the journal belongs to another migration`);
    }
  }
  return { records, tornTail: end < text.length, goodBytes: Buffer.byteLength(text.slice(0, end)) };
}

function parseLine(line: string, number: number): JournalRecord {
  const parts = line.length > MAX_LINE ? null : /^(\{.*),"sum":"([0-9a-f]{8})"\}$/.exec(line);
  if (parts === null) throw new JournalError(`line ${number} of the journal is not a journal record`);
  const text = `${parts[1]}}`;
  if (sumOf(text) !== parts[2]) throw new JournalError(`line ${number} of the journal has a wrong checksum`);
  const parsed = journalRecordSchema.safeParse(readJson(text, number));
  if (!parsed.success) {
    throw new JournalError(
      `line ${number} of the journal is not understood: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}

function readJson(text: string, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new JournalError(`line ${number} of the journal is not JSON`, { cause });
  }
}

function sumOf(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

/** The mode that was last recorded; post-copy, which waits for more, when none was. */
export function modeOf(records: readonly JournalRecord[]): 'precopy' | 'postcopy' {
  return records.findLast((record) => record.mode !== undefined)?.mode ?? 'postcopy';
}

export type JournalOutcome =
  /** Nothing was written: the migration never began on this side. */
  | { readonly role: 'none'; readonly outcome: 'not-started' }
  /** `undecided`: no commit, so the guest belongs to the source. */
  | {
      readonly role: 'source';
      readonly outcome: 'undecided' | 'committed' | 'rolled-back' | 'done';
    }
  /** `in-doubt`: only the source's journal knows. */
  | {
      readonly role: 'dest';
      readonly outcome: 'undecided' | 'in-doubt' | 'committed' | 'discarded' | 'done';
    };

/** What a journal says about its side. The last record decides. */
export function outcomeOf(records: readonly JournalRecord[]): JournalOutcome {
  const last = records.at(-1);
  if (last === undefined) return { role: 'none', outcome: 'not-started' };
  if (last.role === 'source') return { role: 'source', outcome: SOURCE_OUTCOME[last.state] };
  return { role: 'dest', outcome: DEST_OUTCOME[last.state] };
}

const SOURCE_OUTCOME = {
  started: 'undecided',
  sealed: 'undecided',
  committed: 'committed',
  'rolling-back': 'rolled-back',
  'rolled-back': 'rolled-back',
  done: 'done',
} as const;

const DEST_OUTCOME = {
  started: 'undecided',
  ready: 'in-doubt',
  run: 'committed',
  done: 'done',
  discarded: 'discarded',
} as const;
