/**
 * What an agent that ended in the middle of a migration left on this host.
 *
 * A hypervisor that loses its agent before the guest is loaded ends by itself. One that has loaded a post-copy's
 * state waits for ever, and holds the guest's disks, which the source needs to take the guest back. Where the
 * journal says that nothing was promised to the source, the guest can never run here, and is ended. Where it was
 * promised, only the source's journal knows the outcome, and nothing is touched.
 */
import { JournalFile, journalPath, journalSessions } from '@vmferry/agent-core/journal-file';
import type { Logger } from '@vmferry/agent-core/log';
import { machineNow } from '@vmferry/agent-core/machine';
import {
  encodeRecord,
  JournalError,
  type JournalRecord,
  outcomeOf,
  parseJournal,
} from '@vmferry/engine/journal/records';
import { recoverDest } from '@vmferry/engine/switchover/dest';
import type { EndOfPrepared } from '@vmferry/hypervisor/qemu/mark';

const ROLE = '-dest';
const LIMITS = { loadMs: 0, outcomeMs: 0 };

export interface LeftoverOptions {
  readonly stateDir: string;
  readonly log: Logger;
  /** Only migrations of this guest. */
  readonly guest?: string;
  /** Ends the hypervisor of the guest if it is the one that the session prepared and never ran. */
  readonly endPrepared: (uri: string, session: string) => Promise<EndOfPrepared>;
}

/** Settles every journal that can be. Never rejects: what cannot be settled does not keep the agent from its work. */
export async function settleLeftovers(options: LeftoverOptions): Promise<void> {
  const { stateDir, log } = options;
  for (const name of await sessionsOf(options)) {
    if (!name.endsWith(ROLE)) continue;
    try {
      await settle(journalPath(stateDir, name), options);
    } catch (error) {
      log.error({ err: error, journal: name }, 'the journal of an unfinished migration cannot be settled');
    }
  }
}

async function sessionsOf({ stateDir, log }: LeftoverOptions): Promise<readonly string[]> {
  try {
    return await journalSessions(stateDir);
  } catch (error) {
    log.error({ err: error }, 'the journals of earlier migrations cannot be read');
    return [];
  }
}

async function settle(path: string, { log, guest: only, endPrepared }: LeftoverOptions): Promise<void> {
  const journal = await JournalFile.open(path);
  try {
    const { records } = parseJournal(await journal.readAll());
    const last = records.at(-1);
    if (last === undefined || (only !== undefined && last.guest !== only)) return;
    const { session, guest } = last;
    const about = { session, guest };
    if (outcomeOf(records).outcome === 'in-doubt')
      log.warn(about, 'a guest waits here for its source: see "When something fails" in the README');
    const { state, actions } = recoverDest(records, LIMITS, machineNow());
    if (state.phase !== 'discarding' || !actions.some(({ type }) => type === 'discard-guest')) return;
    const end = await endPrepared(guest, session);
    if (end.found === 'kept') {
      log.warn({ ...about, why: end.why }, 'a hypervisor with a guest that never ran may be left; end it');
      return;
    }
    await journal.append(encodeRecord(discarded(last)).trimEnd());
    log.info({ ...about, found: end.found }, 'an unfinished migration was settled: its guest never ran here');
  } catch (error) {
    if (!(error instanceof JournalError)) throw error;
    log.error({ err: error, path }, 'a damaged journal is left as it is');
  } finally {
    await journal.close();
  }
}

function discarded({ session, guest, mode }: JournalRecord): JournalRecord {
  const why = 'The destination agent was restarted before the guest was loaded.';
  const common = { v: 1, session, guest, role: 'dest', state: 'discarded', at: Date.now(), why } as const;
  return mode === undefined ? common : { ...common, mode };
}
