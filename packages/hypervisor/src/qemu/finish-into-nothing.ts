/**
 * A post-copy that QEMU has paused, and that is not to be: QEMU cannot give it up, but it can finish. It is resumed
 * to somebody who claims to have every page; believes it, sends nothing, and is done, with the guest's memory and disks
 * as they were. From there `cont` takes the guest back. Only for a guest that never ran on its destination.
 */
import { readRamBlocks } from './inspect/ram-blocks.ts';
import { privateSocketPath } from './migration-socket.ts';
import type { QmpClient } from './qmp/client.ts';
import { acceptResumption, answerResumption } from './resumption.ts';
import type { ReturnPathEncoder } from './stream/return-path.ts';

/** Resolves when QEMU has closed its stream. What became of it `query-migrate` tells. */
export async function finishIntoNothing(client: QmpClient): Promise<void> {
  const blocks = new Map((await readRamBlocks(client)).map(({ name, bytes }) => [name, bytes]));
  const place = await privateSocketPath();
  try {
    const uri = `unix:${place.path}`;
    const socket = await acceptResumption(place.path, () => client.execute('migrate', { uri, resume: true }));
    try {
      const resumed = (replies: ReturnPathEncoder) => socket.write(replies.shut(0));
      await answerResumption(socket, { blocks, pagesHere: 'all', resumed });
    } finally {
      socket.destroy();
    }
  } finally {
    await place.remove();
  }
}
