/**
 * libvirtd is waited for no longer than that is worth. One that was stopped, or that has got stuck, keeps its sockets
 * and says nothing; and a QEMU that was stopped keeps those waiting that ask libvirt for it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestError } from '@vmferry/engine/errors';
import { LibvirtConnection } from '@vmferry/native/libvirt/connection';

/** Longer than the keepalive of a connection takes, which knows more of why. */
const ANSWER_MS = 40_000;
/** To be let in, where no keepalive watches yet. One that is started for it finds out first what its QEMUs can do. */
const OPEN_MS = 30_000;
/** To be let go of: whoever is not there needs no good-bye. */
const CLOSE_MS = 5000;
/** From the failure of a call to the news that the connection is lost. */
const TOLD_MS = 500;

/** @throws GuestError E_GUEST_UNREACHABLE from a libvirtd that takes the connection and does not answer */
export async function openLibvirt(uri: string, timeoutMs = OPEN_MS): Promise<LibvirtConnection> {
  const silent = AbortSignal.timeout(timeoutMs);
  try {
    return await LibvirtConnection.open(uri, { signal: silent });
  } catch (error) {
    throw error === silent.reason ? unanswered('let the agent in', timeoutMs) : error;
  }
}

/**
 * What libvirt answers. What comes later nobody has.
 *
 * @param what it was asked to do, behind "libvirt has not"
 * @throws GuestError E_GUEST_UNREACHABLE when it has not answered by then
 */
export function answerOf<T>(what: string, asked: Promise<T>, timeoutMs = ANSWER_MS): Promise<T> {
  return inTime(asked, timeoutMs, () => {
    throw unanswered(what, timeoutMs);
  });
}

/** Says good-bye, without waiting for one who does not hear it: what is left of it ends with the daemon's silence. */
export async function letGo(work: Promise<unknown>, timeoutMs = CLOSE_MS): Promise<void> {
  await inTime(work, timeoutMs, () => undefined);
}

/** `late` gives what counts in its place when it has not come by then. */
async function inTime<T>(work: Promise<T>, timeoutMs: number, late: () => T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  try {
    return await Promise.race([work, over.then(late)]);
  } finally {
    clearTimeout(timer);
  }
}

/** A connection whose daemon is lost: a call of its may have been the first to fail. */
export async function isLost(connection: LibvirtConnection): Promise<boolean> {
  if (!connection.closed) {
    const closed = new Promise<void>((resolve) => connection.once('close', () => resolve()));
    await Promise.race([closed, sleep(TOLD_MS, undefined, { ref: false })]);
  }
  return connection.closed;
}

/**
 * Work that begins with finding libvirtd again where it is lost, and is done anew for one that is lost in the middle of
 * it: the calls may be the first to know.
 */
export async function doneAnewIfLost(
  connection: () => LibvirtConnection,
  work: () => Promise<void>,
): Promise<void> {
  const lostBefore = connection().closed;
  try {
    await work();
  } catch (error) {
    if (lostBefore || !(await isLost(connection()))) throw error;
    await work();
  }
}

function unanswered(what: string, ms: number): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `libvirt has not ${what} within ${ms / 1000} s`,
    'see whether libvirtd and the QEMU of the domain hang or were stopped (ps, libvirtd’s log), and restart libvirtd if it does not answer "virsh list"',
  );
}
