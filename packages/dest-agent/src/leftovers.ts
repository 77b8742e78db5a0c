/**
 * What an agent that ended in the middle of a migration left on this host.
 *
 * A hypervisor that loses its agent before the guest is loaded ends by itself. One that has loaded a post-copy's
 * state waits for ever, and holds the guest's disks, which the source needs to take the guest back. Where the
 * journal says that nothing was promised to the source, the guest can never run here, and is ended. Where it was
 * promised, only the source's journal knows the outcome, and nothing is touched. Where the source has committed and
 * the agent ended before it let the guest run, that is left to an operator as well, for the journal does not say
 * whether the guest is to run; but it is told at every start.
 */
import type { Logger } from '@vmferry/agent-core/log';
import { machineNow } from '@vmferry/agent-core/machine';
import { type JournalEnd, type LeftJournals, settleJournals } from '@vmferry/agent-core/settle-journals';
import { byHand } from '@vmferry/engine/by-hand';
import { type JournalRecord, outcomeOf } from '@vmferry/engine/journal/records';
import { recoverDest } from '@vmferry/engine/switchover/dest';
import type { CommittedHere, EndOfPrepared } from '@vmferry/hypervisor/qemu/mark';

const LIMITS = { loadMs: 0, outcomeMs: 0 };

export interface LeftoverOptions extends LeftJournals {
  /** Ends the hypervisor of the guest if it is the one that the session prepared and never ran. */
  readonly endPrepared: (uri: string, session: string) => Promise<EndOfPrepared>;
  /** Looks at the guest that was committed to the session, and touches nothing. */
  readonly look: (uri: string, session: string) => Promise<CommittedHere>;
}

/** Settles every journal that can be. Never rejects: see `settleJournals`. */
export async function settleLeftovers(options: LeftoverOptions): Promise<void> {
  await settleJournals('dest', options, (records, last) => settle(records, last, options));
}

async function settle(
  records: readonly JournalRecord[],
  last: JournalRecord,
  { log, endPrepared, look }: LeftoverOptions,
): Promise<JournalEnd | undefined> {
  const { session, guest } = last;
  const about = { session, guest };
  switch (outcomeOf(records).outcome) {
    case 'in-doubt':
      log.warn(about, 'a guest waits here for its source: see "When something fails" in the README');
      return undefined;
    case 'committed':
      tellCommitted(await look(guest, session), log, about);
      return undefined;
    case 'undecided':
      break;
    default:
      return undefined;
  }
  const { state, actions } = recoverDest(records, LIMITS, machineNow());
  if (state.phase !== 'discarding' || !actions.some(({ type }) => type === 'discard-guest')) return undefined;
  const end = await endPrepared(guest, session);
  if (end.found === 'kept') {
    log.warn(
      { ...about, why: end.why },
      `a hypervisor with a guest that never ran may be left; end it (${byHand(guest).end})`,
    );
    return undefined;
  }
  log.info({ ...about, found: end.found }, 'an unfinished migration is settled: its guest never ran here');
  return { state: 'discarded', why: 'The destination agent was restarted before the guest was loaded.' };
}

interface About {
  readonly session: string;
  readonly guest: string;
}

/** Nothing is said of a guest that runs, or is gone: it was told to run. */
function tellCommitted(seen: CommittedHere, log: Logger, about: About): void {
  if (seen.found === 'gone' || (seen.found === 'here' && seen.status === 'running')) return;
  const committed =
    'The destination agent ended after a guest was committed to it, before it let the guest run';
  if (seen.found === 'kept') {
    const remedy = 'see that the guest runs here, and never let it run on the source';
    log.error(
      { ...about, code: 'E_GUEST_FAILED', guestRunsOn: 'unknown', remedy },
      `${committed}: ${seen.why}`,
    );
    return;
  }
  const whole = seen.migration === 'completed';
  const { run, finish } = byHand(about.guest);
  log.error(
    {
      ...about,
      code: 'E_LINK_LOST',
      guestRunsOn: 'neither',
      remedy: whole
        ? `let it run here (${run}), unless it was paused before; never let it run on the source`
        : `keep both hypervisors, and never let it run on the source. If all of its memory is here, let it run (${run}); else ${finish}`,
    },
    whole
      ? `${committed}: it is whole and stands still.`
      : `${committed}: it stands still, and part of its memory may be on the source ("${seen.migration}").`,
  );
}
