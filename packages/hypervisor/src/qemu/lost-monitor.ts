/**
 * A monitor that is lost is not a QEMU that is gone: the connection may go through a proxy that ended, and the guest
 * runs on.
 */
import { readFile } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import { QmpError } from './qmp/errors.ts';

/** Of a process that has closed its monitor for good. */
const ENDING_MS = 2000;

const POLL_MS = 50;
/** States of `/proc/PID/stat` of one that has ended. */
const ENDED = ['Z', 'X', 'x'];

/** Whether a process of this host lives on after its monitor was closed. */
export async function outlives(pid: number): Promise<boolean> {
  const deadline = performance.now() + ENDING_MS;
  while (await lives(pid)) {
    if (performance.now() > deadline) return true;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return false;
}

export function isClosed(error: unknown): boolean {
  return error instanceof QmpError && error.code === 'E_QMP_CLOSED';
}

/** The way to QEMU is lost, and not QEMU. */
export function isLost({ code }: GuestError): boolean {
  return code === 'E_GUEST_UNREACHABLE';
}

export function monitorLost(path: string, cause: Error): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `the monitor ${path} of the guest's QEMU on the source was lost, and QEMU lives: ${cause.message}`,
    'see what ended the connection to the monitor, and where the guest runs (query-status on another -qmp) before you start it anywhere',
    { cause },
  );
}

async function lives(pid: number): Promise<boolean> {
  try {
    // The name before it may hold anything.
    const [state = ''] = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ').at(-1)!;
    return !ENDED.includes(state);
  } catch {
    return false;
  }
}
