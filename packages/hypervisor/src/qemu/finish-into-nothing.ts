/**
 * A post-copy that QEMU has paused, and that is not to be: QEMU cannot give it up, but it can finish. It is resumed
 * to somebody who claims to have every page; believes it, sends nothing, and is done, with the guest's memory and disks
 * as they were. From there `cont` takes the guest back. Only for a guest that never ran on its destination.
 *
 *     QEMU: recv-bitmap (each block) ─▶   ◀─ all of it
 *           resume ─▶                     ◀─ resume-ack, shut
 *           the end of its stream
 */
import { once } from 'node:events';
import { chmod } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { GuestError } from '@vmferry/engine/errors';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { readRamBlocks } from './inspect/ram-blocks.ts';
import { privateSocketPath } from './migration-socket.ts';
import type { QmpClient } from './qmp/client.ts';
import { Command, RecordType } from './stream/format.ts';
import { ReturnPathEncoder } from './stream/return-path.ts';

/** For QEMU's connection, and again for all that it says. */
const TIMEOUT_MS = 30_000;
/** Type, command and length. */
const COMMAND_BYTES = 5;

/** Resolves when QEMU has closed its stream. What became of it `query-migrate` tells. */
export async function finishIntoNothing(client: QmpClient): Promise<void> {
  const blocks = new Map((await readRamBlocks(client)).map(({ name, bytes }) => [name, bytes]));
  const place = await privateSocketPath();
  const server = createServer();
  let socket: Socket | undefined;
  try {
    server.listen(place.path);
    await once(server, 'listening');
    await chmod(place.path, 0o777);
    const connected = connection(server);
    await client.execute('migrate', { uri: `unix:${place.path}`, resume: true });
    socket = await connected;
    socket.setTimeout(TIMEOUT_MS, () => socket?.destroy(tooSlow()));
    await answer(socket, blocks);
  } finally {
    socket?.destroy();
    server.close();
    await place.remove();
  }
}

function connection(server: Server): Promise<Socket> {
  const found = new Promise<Socket>((resolve, reject) => {
    const timer = setTimeout(() => reject(tooSlow()), TIMEOUT_MS);
    server.once('connection', (socket: Socket) => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
  found.catch(() => {});
  return found;
}

async function answer(socket: Socket, blocks: ReadonlyMap<string, number>): Promise<void> {
  const replies = new ReturnPathEncoder();
  let left: Buffer = Buffer.alloc(0);
  let resumed = false;
  for await (const chunk of socket) {
    // What follows is the end of the stream, without a page in it.
    if (resumed) continue;
    left = Buffer.concat([left, chunk as Buffer]);
    while (!resumed && left.length >= COMMAND_BYTES && left.length >= COMMAND_BYTES + left.readUInt16BE(3)) {
      const command = left.readUInt16BE(1);
      const payload = left.subarray(COMMAND_BYTES, COMMAND_BYTES + left.readUInt16BE(3));
      if (left[0] !== RecordType.command) throw notUnderstood();
      if (command === Command.recvBitmap) {
        const name = payload.toString('latin1', 1, 1 + (payload[0] ?? 0));
        const size = blocks.get(name);
        if (size === undefined) throw notUnderstood();
        socket.write(replies.everyPage(name, Math.ceil(size / PAGE_BYTES)));
      } else if (command === Command.resume) {
        resumed = true;
        socket.write(replies.resumeAck());
        socket.write(replies.shut(0));
      }
      left = left.subarray(COMMAND_BYTES + payload.length);
    }
  }
}

function tooSlow(): GuestError {
  return new GuestError(
    'E_TIMEOUT',
    `QEMU did not finish its post-copy within ${TIMEOUT_MS / 1000} s`,
    "see QEMU's log on the source, then start the agent again",
  );
}

function notUnderstood(): GuestError {
  return new GuestError(
    'E_STREAM',
    'what QEMU says when its post-copy is resumed is not understood',
    'report this with the version of QEMU',
  );
}
