/**
 * A guest that was leaving when its agent ended, as the next agent finds it.
 *
 * The mark of the session tells that it is that QEMU, whatever has the monitor's path by now. That nobody else
 * migrates it is told by the monitor, which has room for one: an agent that lives holds it all the time.
 *
 *     among the rounds      its socket broke, QEMU gave the migration up, and the guest goes on by itself
 *     stopped, sent         it stands: in "postmigrate", or where QEMU was kept from letting it run
 *     post-copy             "postcopy-paused": it is let finish into nothing
 */
import { GuestError } from '@vmferry/engine/errors';
import { finishIntoNothing } from './finish-into-nothing.ts';
import { MigrationSettings } from './inspect/capabilities.ts';
import { type Found, readLeavingMark, takeLeavingMark } from './mark.ts';
import { migrationStatus } from './migration-status.ts';
import { QmpClient } from './qmp/client.ts';
import { asGuestError, isNobodyThere, QmpError } from './qmp/errors.ts';
import { statusReply, typed } from './qmp/schema.ts';
import { restingState, runAgain } from './run-again.ts';

const SETTLE_TIMEOUT_MS = 60_000;
const POLL_MS = 50;

/** What became of a guest that belongs here, the migration being given up. */
export type TakenBack =
  /**
   * It is here, and the migration has left nothing, but for what the `remark` says. `status`: QEMU's run state; "running"
   * if it ran before.
   */
  | {
      readonly found: 'here';
      readonly status: string;
      readonly ranBefore: boolean;
      readonly remark?: string;
    }
  /** No QEMU has the monitor. */
  | { readonly found: 'gone' }
  /** A QEMU has it, and no mark: it is another one, or was settled before. Left alone. */
  | { readonly found: 'unmarked'; readonly status: string }
  /** Left as it is. */
  | { readonly found: 'kept'; readonly why: string; readonly remedy: string };

/** Where a guest stands that belongs to the destination. */
export type Committed =
  /** `migration`: QEMU's status of it. */
  | { readonly found: 'here'; readonly status: string; readonly migration: string }
  | Exclude<TakenBack, { readonly found: 'here' }>;

/** Gives the migration of `session` up: the guest runs here again if it ran before, with its settings as they were. */
export function takeBackLeft(path: string, session: string): Promise<TakenBack> {
  return withMarked<TakenBack>(path, session, async (client, found) => {
    if ((await given(client)) === 'postcopy-paused') {
      await finishIntoNothing(client);
      await given(client);
    }
    let status = await restingState(client);
    // Any other state is somebody's wish since, or the guest's own doing.
    if (found.running && (status === 'postmigrate' || status === 'finish-migrate')) {
      await runAgain(client);
      status = 'running';
    }
    await new MigrationSettings(client).putBack(found.settings);
    await takeLeavingMark(client, session);
    return { found: 'here', status, ranBefore: found.running };
  });
}

/** Looks, and touches nothing. */
export function lookAtCommitted(path: string, session: string): Promise<Committed> {
  return withMarked<Committed>(path, session, async (client) => {
    const { status } = await typed(client, 'query-status', statusReply);
    return { found: 'here', status, migration: await migrationStatus(client) };
  });
}

async function withMarked<T>(
  path: string,
  session: string,
  work: (client: QmpClient, found: Found) => Promise<T>,
): Promise<T | Exclude<TakenBack, { readonly found: 'here' }>> {
  let client: QmpClient;
  try {
    client = await QmpClient.connect(path);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return isNobodyThere(error) ? { found: 'gone' } : keptBy(error);
  }
  try {
    const found = await readLeavingMark(client, session);
    if (found) return await work(client, found);
    const { status } = await typed(client, 'query-status', statusReply);
    return { found: 'unmarked', status };
  } catch (error) {
    return keptBy(error);
  } finally {
    await client.close();
  }
}

function keptBy(error: unknown): Extract<TakenBack, { readonly found: 'kept' }> {
  const known = asGuestError(error);
  if (!(known instanceof GuestError)) throw error;
  return { found: 'kept', why: known.message, remedy: known.remedy };
}

/** The migration's status once it is over, or halted. Its socket has nobody at the other end. */
async function given(client: QmpClient): Promise<string> {
  const deadline = performance.now() + SETTLE_TIMEOUT_MS;
  let cancelled = false;
  for (;;) {
    const status = await migrationStatus(client);
    if (['none', 'completed', 'failed', 'cancelled', 'postcopy-paused'].includes(status)) return status;
    if (performance.now() > deadline) return status;
    if (!status.startsWith('postcopy') && !cancelled) {
      await client.execute('migrate_cancel');
      cancelled = true;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
