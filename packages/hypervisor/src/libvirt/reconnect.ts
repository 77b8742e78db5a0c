/** A libvirtd that was restarted, or is still to come back: its domains have gone on, and it is asked again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { openLibvirt } from './answer.ts';

/** A service manager starts it again in seconds. */
const BACK_MS = 30_000;
const POLL_MS = 200;

/** @throws LibvirtError or GuestError why it is not back after half a minute */
export async function reconnect(
  uri: string,
  open: (uri: string) => Promise<LibvirtConnection> = (to) => openLibvirt(to),
  timeoutMs = BACK_MS,
): Promise<LibvirtConnection> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await open(uri);
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await sleep(POLL_MS);
  }
}
