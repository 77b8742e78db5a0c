/**
 * The local sockets that stand between an agent and its QEMU.
 *
 * They live in a directory that nobody can list, under a name that nobody can guess, because QEMU may run
 * as another user than the agent and must still reach them.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestError, messageOf } from '@vmferry/engine/errors';
import { LocalListener, LocalSocket } from '@vmferry/native/local-socket';

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
  /** Undefined when it was closed before a connection came. */
  readonly connection: Promise<LocalSocket | undefined>;
  /** Stops listening; a connection that was taken stays. */
  close(): Promise<void>;
}

/** Listens for the one connection that QEMU makes. */
export async function listenForQemu(): Promise<MigrationListener> {
  const place = await privateSocketPath();
  const listener = new LocalListener(place.path);
  await chmod(place.path, 0o777);
  let taken = false;
  const connection = listener.accept().then((socket) => {
    taken = socket !== undefined;
    return socket;
  });
  connection.catch(() => {});
  return {
    uri: `unix:${place.path}`,
    connection,
    async close() {
      if (!taken) listener.close();
      await place.remove();
    },
  };
}

/** Connects to the socket on which an incoming QEMU listens. */
export function connectToQemu(path: string): LocalSocket {
  try {
    return LocalSocket.connect(path);
  } catch (cause) {
    throw new GuestError(
      'E_GUEST_FAILED',
      `QEMU does not take the migration stream: ${messageOf(cause)}`,
      'look into the log of the destination QEMU',
      { cause },
    );
  }
}
