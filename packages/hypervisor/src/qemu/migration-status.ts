/** What a QEMU says of the migration that it makes or takes in. */
import type { QmpClient } from './qmp/client.ts';
import { migrateReply, type QmpExecutor, typed } from './qmp/schema.ts';

export async function migrationStatus(client: QmpExecutor): Promise<string> {
  return (await typed(client, 'query-migrate', migrateReply)).status ?? 'none';
}

/**
 * The present status, or else the first to come, that `isIt` holds for.
 *
 * @throws QmpError E_QMP_TIMEOUT
 */
export async function awaitMigration(
  client: QmpClient,
  isIt: (status: string) => boolean,
  timeoutMs = Number.POSITIVE_INFINITY,
): Promise<string> {
  const over = new AbortController();
  const event = client.waitForEvent('MIGRATION', ({ data }) => isIt(String(data['status'])), {
    timeoutMs,
    signal: over.signal,
  });
  event.catch(() => {});
  try {
    const status = await migrationStatus(client);
    return isIt(status) ? status : String((await event).data['status']);
  } finally {
    over.abort();
  }
}

/** QEMU has ended the migration, one way or the other. */
export function isOver(status: string): boolean {
  return status === 'completed' || status === 'failed' || status === 'cancelled';
}
