/**
 * libvirt's own set-up of a migration, before QEMU sends anything: the destination's QEMU is started, and disks are
 * copied. libvirt waits without limit for a QEMU that does not answer, on either host, while its daemons keep each other
 * alive.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { notBegun } from './faults.ts';

/** A QEMU of much memory, of huge pages above all, takes minutes to start. */
const STUCK_MS = 300_000;
const POLL_MS = 2000;

/**
 * Rejects when nothing has moved for so long, or when it is `over`.
 *
 * @param moved something that grows while disks are copied
 * @throws GuestError E_STALLED
 */
export async function untilStuck(
  moved: () => Promise<number>,
  over: AbortSignal,
  stuckMs = STUCK_MS,
): Promise<never> {
  let last = -1;
  let since = performance.now();
  let asking = false;
  const look = async (): Promise<void> => {
    asking = true;
    try {
      const amount = await moved();
      if (amount !== last) since = performance.now();
      last = amount;
    } catch {
      // libvirt, or the domain, is told by who waits for it.
    } finally {
      asking = false;
    }
  };
  for (;;) {
    await sleep(Math.min(POLL_MS, stuckMs / 10), undefined, { signal: over });
    if (!asking) void look();
    if (performance.now() - since > stuckMs) throw notBegun(stuckMs);
  }
}
