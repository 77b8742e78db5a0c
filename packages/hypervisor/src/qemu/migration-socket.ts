/**
 * The local sockets that stand between an agent and its QEMU.
 *
 * They live in a directory that nobody can list, under a name that nobody can guess, because QEMU may run
 * as another user than the agent and must still reach them.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestError } from '@vmferry/engine/errors';

const READ_AHEAD_BYTES = 256 * 1024;

export interface PrivateSocketPath {
  readonly path: string;
  /** Removes the directory and whatever is in it. */
  remove(): Promise<void>;
}

export async function privateSocketPath(): Promise<PrivateSocketPath> {
  const directory = await mkdtemp(join(tmpdir(), 'vmferry-'));
  // Writable and passable for QEMU's user, listable for nobody but ours.
  await chmod(directory, 0o733);
  return {
    path: join(directory, randomBytes(8).toString('hex')),
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}

export interface MigrationListener {
  /** What QEMU is to migrate to. */
  readonly uri: string;
  readonly connection: Promise<Socket>;
  /** Stops listening; a connection that was taken stays. */
  close(): Promise<void>;
}

/** Listens for the one connection that QEMU makes. */
export async function listenForQemu(): Promise<MigrationListener> {
  const place = await privateSocketPath();
  const server = createServer({ highWaterMark: READ_AHEAD_BYTES, allowHalfOpen: true, pauseOnConnect: true });
  const connection = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(place.path, resolve);
  });
  await chmod(place.path, 0o777);
  return {
    uri: `unix:${place.path}`,
    connection,
    async close() {
      // Its callback would wait for the connection to end.
      server.close();
      await place.remove();
    },
  };
}

/** Connects to the socket on which an incoming QEMU listens. */
export function connectToQemu(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    const failed = (cause: Error): void =>
      reject(
        new GuestError(
          'E_GUEST_FAILED',
          `QEMU does not take the migration stream: ${cause.message}`,
          'look into the log of the destination QEMU',
          { cause },
        ),
      );
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}
