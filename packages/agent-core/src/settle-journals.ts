/** The journals that earlier agents of a role left on this host, one after the other, each settled if it can be. */
import {
  encodeRecord,
  JournalError,
  type JournalRecord,
  parseJournal,
} from '@vmferry/engine/journal/records';
import { JournalFile, journalPath, journalSessions } from './journal-file.ts';
import type { Logger } from './log.ts';

export interface LeftJournals {
  readonly stateDir: string;
  readonly log: Logger;
  /** Only migrations of this guest. */
  readonly guest?: string;
}

/** What a journal is ended with. */
export interface JournalEnd {
  readonly state: 'rolled-back' | 'discarded' | 'done';
  /** In words. */
  readonly why: string;
}

/** Undefined: nothing ends the journal, or not yet. */
export type Settle = (
  records: readonly JournalRecord[],
  last: JournalRecord,
) => Promise<JournalEnd | undefined>;

/** Never rejects: what cannot be settled does not keep the agent from its work, and is logged. */
export async function settleJournals(
  role: JournalRecord['role'],
  left: LeftJournals,
  settle: Settle,
): Promise<void> {
  for (const name of await sessionsOf(left)) {
    if (!name.endsWith(`-${role}`)) continue;
    try {
      await settleOne(journalPath(left.stateDir, name), left, settle);
    } catch (error) {
      left.log.error(
        { err: error, journal: name },
        'the journal of an unfinished migration cannot be settled',
      );
    }
  }
}

async function sessionsOf({ stateDir, log }: LeftJournals): Promise<readonly string[]> {
  try {
    return await journalSessions(stateDir);
  } catch (error) {
    log.error({ err: error }, 'the journals of earlier migrations cannot be read');
    return [];
  }
}

async function settleOne(path: string, { log, guest }: LeftJournals, settle: Settle): Promise<void> {
  const journal = await JournalFile.open(path);
  try {
    const { records } = parseJournal(await journal.readAll());
    const last = records.at(-1);
    if (last === undefined || (guest !== undefined && last.guest !== guest)) return;
    const end = await settle(records, last);
    if (end) await journal.append(encodeRecord(recordOf(last, end)).trimEnd());
  } catch (error) {
    if (!(error instanceof JournalError)) throw error;
    log.error({ err: error, path }, 'a damaged journal is left as it is');
  } finally {
    await journal.close();
  }
}

function recordOf({ session, guest, role, mode, peer }: JournalRecord, end: JournalEnd): JournalRecord {
  return {
    ...{ v: 1, session, guest, role, at: Date.now(), ...end },
    ...(mode === undefined ? {} : { mode }),
    ...(peer === undefined ? {} : { peer }),
  } as JournalRecord;
}
