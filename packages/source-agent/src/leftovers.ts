/**
 * What an agent that ended in the middle of a migration left on this host.
 *
 * Where the journal has no commit the guest belongs here: its hypervisor gives the migration up, and the guest runs
 * here again if it ran before. With a commit the guest belongs to the destination, whatever became of it: nothing is
 * touched, and the log says what there is to do.
 */
import type { Logger } from '@vmferry/agent-core/log';
import { machineNow } from '@vmferry/agent-core/machine';
import { type JournalEnd, type LeftJournals, settleJournals } from '@vmferry/agent-core/settle-journals';
import { byHand } from '@vmferry/engine/by-hand';
import type { GuestRunsOn } from '@vmferry/engine/errors';
import type { JournalRecord } from '@vmferry/engine/journal/records';
import { recoverSource } from '@vmferry/engine/switchover/source';
import type { Committed, TakenBack } from '@vmferry/hypervisor/qemu/left-source';

const LIMITS = { readyMs: 0, runningMs: 0 };

export interface LeftoverOptions extends LeftJournals {
  /** Gives up the migration of a guest that belongs here, if it is the one that the session moved. */
  readonly takeBack: (uri: string, session: string) => Promise<TakenBack>;
  /** Where a guest stands that belongs to the destination; touches nothing. */
  readonly look: (uri: string, session: string) => Promise<Committed>;
}

/** Settles every journal that can be. Never rejects: see `settleJournals`. */
export async function settleLeftovers(options: LeftoverOptions): Promise<void> {
  await settleJournals('source', options, (records, last) => settle(records, last, options));
}

async function settle(
  records: readonly JournalRecord[],
  last: JournalRecord,
  options: LeftoverOptions,
): Promise<JournalEnd | undefined> {
  const { state } = recoverSource(records, LIMITS, machineNow());
  if (state.phase === 'rolling-back') return await takeBack(last, options);
  return state.phase === 'committed' ? await look(last, options) : undefined;
}

/** Undefined: the next agent has to try again. */
async function takeBack(
  { session, guest, peer }: JournalRecord,
  { log, takeBack: give }: LeftoverOptions,
): Promise<JournalEnd | undefined> {
  const about = { session, guest, peer };
  const { run } = byHand(guest);
  const taken = await give(guest, session);
  switch (taken.found) {
    case 'here':
      if (taken.remark !== undefined) {
        log.warn(
          { ...about, status: taken.status, guestRunsOn: 'source', remedy: taken.remark },
          'an unfinished migration was given up, and not all of it could be undone: its guest is on this host',
        );
      } else if (taken.status === 'running' || !taken.ranBefore) {
        log.info(
          { ...about, status: taken.status, guestRunsOn: 'source' },
          'an unfinished migration was given up: its guest is on this host as before',
        );
      } else {
        log.warn(
          {
            ...about,
            status: taken.status,
            guestRunsOn: 'neither',
            remedy: `let it run here if it is to run (${run})`,
          },
          'an unfinished migration was given up: its guest belongs to this host, and does not run',
        );
      }
      return rolledBack();
    case 'gone':
      log.warn(
        {
          ...about,
          code: 'E_GUEST_GONE',
          guestRunsOn: 'neither',
          remedy: 'start the guest again if it is to run',
        },
        'an unfinished migration is over: its guest has ended on this host and never ran on the destination',
      );
      return rolledBack();
    case 'unmarked':
      if (taken.status === 'running') {
        log.info({ ...about, guestRunsOn: 'source' }, 'an unfinished migration had left nothing');
        return rolledBack();
      }
      attention(log, about, {
        code: 'E_GUEST_MISMATCH',
        guestRunsOn: 'unknown',
        why: `The hypervisor at the guest's address is "${taken.status}" and not known to be the one that this migration began with.`,
        remedy: `If it is the guest, it belongs to this host: let it run (${run}). If it is another one, move the journal of this session away.`,
      });
      return undefined;
    case 'kept':
      attention(log, about, {
        code: 'E_GUEST_FAILED',
        guestRunsOn: 'neither',
        why: `The guest belongs to this host, and could not be taken back: ${taken.why}`,
        remedy: taken.remedy,
      });
      return undefined;
  }
}

async function look(
  { session, guest, peer }: JournalRecord,
  { log, look: see }: LeftoverOptions,
): Promise<JournalEnd | undefined> {
  const about = { session, guest, peer };
  const seen = await see(guest, session);
  if (seen.found === 'gone' || seen.found === 'unmarked') {
    log.warn(
      { ...about, guestRunsOn: 'dest', remedy: 'see that it runs there' },
      'the guest of an unfinished migration belongs to the destination, and nothing of it is left on this host',
    );
    return { state: 'done', why: 'The source agent was restarted after the commit; its hypervisor is gone.' };
  }
  attention(log, about, committedWords(seen, guest));
  return undefined;
}

interface Attention {
  readonly code: 'E_LINK_LOST' | 'E_GUEST_MISMATCH' | 'E_GUEST_FAILED';
  readonly guestRunsOn: GuestRunsOn;
  readonly why: string;
  readonly remedy: string;
}

function committedWords(
  seen: Extract<Committed, { readonly found: 'here' | 'kept' }>,
  guest: string,
): Attention {
  const { run, end, finish } = byHand(guest);
  const code = 'E_LINK_LOST';
  const committed = 'The source agent ended after the guest was committed to the destination';
  if (seen.found === 'kept') {
    return { code, guestRunsOn: 'unknown', why: `${committed}: ${seen.why}`, remedy: seen.remedy };
  }
  if (seen.status === 'running') {
    return {
      code,
      guestRunsOn: 'source',
      why: `${committed}, and somebody has let it run on the source since.`,
      remedy: `Make sure that it does not run on the destination as well: end it there (${end}).`,
    };
  }
  if (seen.migration === 'completed') {
    return {
      code,
      guestRunsOn: 'unknown',
      why: `${committed}, which has all of it.`,
      remedy: `If it does not run there, let it run there (${run}); then end it here (${end}). Never let it run on the source.`,
    };
  }
  return {
    code,
    guestRunsOn: 'dest',
    why: `${committed}, and part of its memory is still on the source ("${seen.migration}").`,
    remedy: `Keep both hypervisors, and never let it run on the source; ${finish}.`,
  };
}

function attention(log: Logger, about: object, { why, ...rest }: Attention): void {
  log.error({ ...about, ...rest }, why);
}

function rolledBack(): JournalEnd {
  return { state: 'rolled-back', why: 'The source agent was restarted before the commit.' };
}
