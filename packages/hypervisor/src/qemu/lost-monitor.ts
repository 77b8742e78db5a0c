/**
 * A monitor that is lost is not a QEMU that is gone: the connection may go through a proxy that ended, and the guest
 * runs on.
 */
import { readFile } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import type { QmpClient } from './qmp/client.ts';

/** Of a process that has closed its monitor for good. */
const ENDING_MS = 2000;

const POLL_MS = 50;
/** States of `/proc/PID/stat` of one that has ended. */
const ENDED = ['Z', 'X', 'x'];

/**
 * Resolves when the monitor of a guest that leaves is closed: with E_GUEST_UNREACHABLE if `livesOn` says that its QEMU is
 * not gone, else with E_GUEST_GONE.
 */
export async function whyLost(client: QmpClient, livesOn: () => Promise<boolean>): Promise<GuestError> {
  let shutdown = '';
  client.on('SHUTDOWN', ({ data }) => {
    const who = data['guest'] === true ? 'the guest shut itself down' : 'it was told to end';
    shutdown = `${who} (${String(data['reason'])}): `;
  });
  const error = await client.closed;
  if (await livesOn()) return monitorLost(client.path, error);
  return new GuestError(
    'E_GUEST_GONE',
    `the guest's QEMU on the source is gone: ${shutdown}${error.message}`,
    "look into QEMU's log on the source host; if the guest ended by itself there is nothing to move",
    { cause: error },
  );
}

/** Whether a process of this host lives on after its monitor was closed. */
export async function outlives(pid: number): Promise<boolean> {
  const deadline = performance.now() + ENDING_MS;
  while (await lives(pid)) {
    if (performance.now() > deadline) return true;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return false;
}

/** The way to QEMU is lost, and not QEMU. */
export function isLost({ code }: GuestError): boolean {
  return code === 'E_GUEST_UNREACHABLE';
}

function monitorLost(path: string, cause: Error): GuestError {
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
