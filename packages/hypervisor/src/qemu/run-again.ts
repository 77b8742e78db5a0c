/** A guest that stands still after a migration that came to nothing is let run again. */
import { GuestError } from '@vmferry/engine/errors';
import { isRefusal } from './qmp/errors.ts';
import { type QmpExecutor, statusReply, typed } from './qmp/schema.ts';
import { isEnded } from './run-state.ts';

/** A destination that is ending may hold the disks' locks until it is gone. */
const RUN_TIMEOUT_MS = 30_000;
const RUN_RETRY_MS = 20;

/** Resolves when it runs. QEMU says that a migration is over a little before it would take `cont`. */
export async function runAgain(client: QmpExecutor): Promise<void> {
  const deadline = performance.now() + RUN_TIMEOUT_MS;
  let { running, status } = await typed(client, 'query-status', statusReply);
  while (!running) {
    const why = await tryToRun(client);
    ({ running, status } = await typed(client, 'query-status', statusReply));
    if (running) return;
    if (performance.now() > deadline || isEnded(status)) throw stands(status, why);
    await new Promise((resolve) => setTimeout(resolve, RUN_RETRY_MS));
  }
}

/** The run state once QEMU has gone over to the one that it keeps after a migration. */
export async function restingState(client: QmpExecutor): Promise<string> {
  const deadline = performance.now() + RUN_TIMEOUT_MS;
  for (;;) {
    const { status } = await typed(client, 'query-status', statusReply);
    if (status !== 'finish-migrate' || performance.now() > deadline) return status;
    await new Promise((resolve) => setTimeout(resolve, RUN_RETRY_MS));
  }
}

/** Why the guest could not be run; empty if it could. */
async function tryToRun(client: QmpExecutor): Promise<string> {
  try {
    await client.execute('cont');
    return '';
  } catch (error) {
    if (isRefusal(error)) return error.message;
    throw error;
  }
}

function stands(status: string, why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the guest does not run again on the source: it is "${status}"${why === '' ? '' : `, and ${why}`}`,
    "remove the cause (a destination QEMU that still holds the disks, perhaps), then send cont to the source QEMU's monitor",
  );
}
