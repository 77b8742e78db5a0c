/**
 * A post-copy whose source agent, or its libvirtd, ended before the commit: QEMU has paused it, and libvirt takes it for
 * failed. It is resumed, to somebody who has none of it, and then undone. What libvirt has of its job stays until the guest
 * ends: nobody can tell it that it is over.
 *
 *     QEMU: postcopy-paused ── resumed to this agent ──▶ postcopy-active ── undone ──▶ running
 */
import { randomBytes } from 'node:crypto';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { readRamBlocks } from '../../qemu/inspect/ram-blocks.ts';
import { typed, versionReply } from '../../qemu/qmp/schema.ts';
import { acceptResumption, answerResumption } from '../../qemu/resumption.ts';
import { comesBack } from '../comes-back.ts';
import { monitorOf } from '../monitor.ts';
import type { LibvirtOptions } from '../options.ts';
import { Rendezvous } from '../rendezvous.ts';
import { stuckInPostcopy } from './faults.ts';
import { slowed, undoPostcopy } from './undo-postcopy.ts';

/** How the domain differs from before. */
export const JOB_STAYS =
  'The domain runs, and libvirt holds its migration for unfinished as long as it does: do not suspend or save it, and do not restart libvirtd. Shut it down from inside when that suits, and start it again.';

/** Resolves when the guest runs. Only one that never ran on its destination. @throws GuestError where this QEMU cannot */
export async function undoHalted(domain: Domain, options: LibvirtOptions): Promise<void> {
  const monitor = monitorOf(domain);
  const { major, minor, micro } = (await typed(monitor, 'query-version', versionReply)).qemu;
  if (comesBack(`QEMU ${major}.${minor}.${micro}`) !== 'undone') throw stuckInPostcopy(domain.name);
  const blocks = new Map((await readRamBlocks(monitor)).map(({ name, bytes }) => [name, bytes]));
  const rendezvous = await Rendezvous.make(options, randomBytes(12).toString('hex'));
  try {
    // From its first byte on.
    await slowed(monitor, async () => {
      const uri = `unix:${rendezvous.there('ram')}`;
      const socket = await acceptResumption(rendezvous.here('ram'), () =>
        monitor.execute('migrate', { uri, resume: true }),
      );
      let wroteAt = performance.now();
      let resumed = (): void => {};
      const goesOn = new Promise<void>((resolve) => {
        resumed = resolve;
      });
      const over = answerResumption(socket, {
        blocks,
        pagesHere: 'none',
        resumed,
        wrote: () => {
          wroteAt = performance.now();
        },
      });
      over.catch(() => {});
      const stream = {
        drain: () => over.catch(() => {}),
        cut: () => socket.destroy(),
        get quietMs() {
          return performance.now() - wroteAt;
        },
      };
      try {
        await Promise.race([goesOn, over]);
        const outcome = await undoPostcopy(domain, { wasRunning: true, stream });
        if (outcome === 'halted') throw stuckInPostcopy(domain.name);
      } finally {
        // QEMU may have said something else.
        stream.cut();
      }
    });
  } finally {
    await rendezvous.remove();
  }
}
