/**
 * What an agent that ended in the middle of a migration left on this host.
 *
 * A hypervisor that loses its agent before the guest is loaded ends by itself. One that has loaded a post-copy's
 * state waits for ever, and holds the guest's disks, which the source needs to take the guest back. Where the
 * journal says that nothing was promised to the source, the guest can never run here, and is ended. Where it was
 * promised, only the source's journal knows the outcome, and nothing is touched.
 */
import { machineNow } from '@vmferry/agent-core/machine';
import { type LeftJournals, settleJournals } from '@vmferry/agent-core/settle-journals';
import { type JournalRecord, outcomeOf } from '@vmferry/engine/journal/records';
import { recoverDest } from '@vmferry/engine/switchover/dest';
import type { EndOfPrepared } from '@vmferry/hypervisor/qemu/mark';

const LIMITS = { loadMs: 0, outcomeMs: 0 };

export interface LeftoverOptions extends LeftJournals {
  /** Ends the hypervisor of the guest if it is the one that the session prepared and never ran. */
  readonly endPrepared: (uri: string, session: string) => Promise<EndOfPrepared>;
}

/** Settles every journal that can be. Never rejects: see `settleJournals`. */
export async function settleLeftovers(options: LeftoverOptions): Promise<void> {
  await settleJournals('dest', options, async (records, last) => await settle(records, last, options));
}

async function settle(
  records: readonly JournalRecord[],
  last: JournalRecord,
  { log, endPrepared }: LeftoverOptions,
): Promise<JournalRecord | undefined> {
  const { session, guest } = last;
  const about = { session, guest };
  if (outcomeOf(records).outcome === 'in-doubt')
    log.warn(about, 'a guest waits here for its source: see "When something fails" in the README');
  const { state, actions } = recoverDest(records, LIMITS, machineNow());
  if (state.phase !== 'discarding' || !actions.some(({ type }) => type === 'discard-guest')) return undefined;
  const end = await endPrepared(guest, session);
  if (end.found === 'kept') {
    log.warn({ ...about, why: end.why }, 'a hypervisor with a guest that never ran may be left; end it');
    return undefined;
  }
  log.info({ ...about, found: end.found }, 'an unfinished migration is settled: its guest never ran here');
  return discarded(last);
}

function discarded({ session, guest, mode }: JournalRecord): JournalRecord {
  const why = 'The destination agent was restarted before the guest was loaded.';
  const common = { v: 1, session, guest, role: 'dest', state: 'discarded', at: Date.now(), why } as const;
  return mode === undefined ? common : { ...common, mode };
}
