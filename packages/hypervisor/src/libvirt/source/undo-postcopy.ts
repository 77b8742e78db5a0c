/**
 * A post-copy whose guest never ran on the destination is taken back, which libvirt itself never does. QEMU before 10.0
 * can be told to cancel one as long as its stream is open; libvirt then sees a domain that runs, and ends its job as that
 * of any migration that failed.
 *
 *     QEMU: postcopy-active ── slowed, migrate_cancel ──▶ cancelled (the guest stands) ── cont ──▶ running
 *     libvirt: paused (post-copy) ──────────────────────────── RESUME ──▶ running (post-copy) ── hung up on ──▶ no job
 *
 * QEMU shuts its stream before it notes that it is cancelled: one that is just writing then takes the link for broken, and
 * waits for it for ever. So it is slowed until it writes nothing for nearly all of the time.
 *
 * `cont` has to come before libvirt is hung up on: of a domain that is paused then it takes the post-copy for failed, and
 * would end a QEMU that says that it has completed one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { RUNS_AGAIN } from '../../qemu/lets-go.ts';
import { migrationStatus } from '../../qemu/migration-status.ts';
import type { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import { QmpError } from '../../qemu/qmp/errors.ts';
import { parametersReply, type QmpExecutor, typed } from '../../qemu/qmp/schema.ts';
import { runAgain } from '../../qemu/run-again.ts';
import { answerOf } from '../answer.ts';
import { monitorOf } from '../monitor.ts';
import { stuckInPostcopy } from './faults.ts';

const LIMIT = 'max-postcopy-bandwidth';
/** On the way to it, and to its end. */
const WAITING = ['device', 'postcopy-recover-setup', 'postcopy-recover'];
const ENDING = ['postcopy-active', 'cancelling'];
const SETTLED_MS = 30_000;
const POLL_MS = 20;
/** Bytes a second: a page every tenth of a second. 0 would be no limit. */
const SLOWEST = 10_240;
/** Written nothing for so long, it sleeps until that tenth of a second is over. */
const QUIET_MS = 30;
const QUIET_AFTER_MS = 5000;
const LOOK_MS = 5;

export interface Undoing {
  /** The guest ran before, and is to run again. */
  readonly wasRunning: boolean;
  /** QEMU's stream, which nobody reads any more. */
  readonly stream: Pick<OutgoingStream, 'drain' | 'quietMs' | 'cut'>;
}

/**
 * Resolves when the guest stands as it stood before; or with "halted", and nothing was done, where QEMU waits for a link:
 * one whose stream broke cannot be cancelled, and would hear no resumption after the attempt.
 *
 * @throws GuestError where this QEMU cannot take it back
 */
export async function undoPostcopy(
  domain: Domain,
  { wasRunning, stream }: Undoing,
): Promise<'undone' | 'halted'> {
  const monitor = monitorOf(domain);
  const found = await statusOf(monitor, WAITING);
  if (found === 'postcopy-paused') return 'halted';
  if (found !== 'postcopy-active') throw stuckInPostcopy(domain.name);
  const drained = stream.drain({ finishes: false });
  try {
    await slowed(monitor, async () => {
      await untilQuiet(stream);
      await monitor.execute('migrate_cancel');
      if ((await statusOf(monitor, ENDING)) !== 'cancelled') throw stuckInPostcopy(domain.name);
    });
    if (wasRunning) await runAgain(monitor);
    return 'undone';
  } catch (error) {
    throw error instanceof QmpError ? stuckInPostcopy(domain.name) : error;
  } finally {
    stream.cut();
    await drained;
  }
}

/**
 * QEMU 10.2 and newer runs the guest again by itself when its stream breaks, as long as it has not noticed that it is
 * loaded. Resolves when it does. @throws GuestError where it has noticed
 */
export async function comeBackByItself(domain: Domain, stream: Undoing['stream']): Promise<void> {
  stream.cut();
  const status = await statusOf(monitorOf(domain), [RUNS_AGAIN, 'failing']);
  if (status !== 'failed') throw stuckInPostcopy(domain.name);
}

/** While QEMU writes nothing for nearly all of the time. */
export async function slowed<T>(monitor: QmpExecutor, work: () => Promise<T>): Promise<T> {
  const { [LIMIT]: limit } = await typed(monitor, 'query-migrate-parameters', parametersReply);
  await monitor.execute('migrate-set-parameters', { [LIMIT]: SLOWEST });
  try {
    return await work();
  } finally {
    // A post-copy that is finished later is not to crawl.
    await monitor.execute('migrate-set-parameters', { [LIMIT]: limit ?? 0 });
  }
}

async function untilQuiet(stream: Undoing['stream']): Promise<void> {
  const deadline = performance.now() + QUIET_AFTER_MS;
  while (stream.quietMs < QUIET_MS && performance.now() < deadline) await sleep(LOOK_MS);
}

/** What QEMU says of its migration once it is in none of the `passing` states any more. */
async function statusOf(monitor: QmpExecutor, passing: readonly string[]): Promise<string> {
  const deadline = performance.now() + SETTLED_MS;
  for (;;) {
    const status = await migrationStatus(monitor);
    if (!passing.includes(status) || performance.now() > deadline) return status;
    await sleep(POLL_MS);
  }
}

/**
 * libvirt calls it "running (post-copy)" from then on, and others would take it for half moved. It stands for an instant.
 * Nothing is done where libvirt has its job still, and would not let it run again.
 */
export async function callItRunning(domain: Domain): Promise<void> {
  const { type } = await answerOf('told of its job', domain.jobInfo());
  if (type !== 'none') return;
  await answerOf('paused the domain', domain.suspend());
  await answerOf('let the domain run', domain.resume());
}
