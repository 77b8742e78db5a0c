/** An agent's listening: operators on one path, the peers' migrations on the other where guests may come in. */
import { parseAddress } from '@vmferry/wire/address';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import {
  type ConnectionHandler,
  Listener,
  type ListenerOptions,
  type Peer,
  type StreamHandler,
} from '@vmferry/wire/listener';
import { DATA_PATH, MIGRATION_PATH, OPERATOR_PATH, type TlsMaterial } from '@vmferry/wire/socket';
import { configError } from './config.ts';
import type { Logger } from './log.ts';
import { type Operations, startingSide } from './operations.ts';
import { serveOperations } from './operator-server.ts';
import { rethrowWireError } from './wire-errors.ts';

export interface ServeOptions {
  readonly operations: Operations;
  /** wss://HOST:PORT, ws://HOST:PORT (port 0: any that is free) or ws+unix:/PATH */
  readonly listen: string;
  readonly tls?: TlsMaterial;
  /** Allow ws://, and wss:// that asks nobody who he is, beyond this host. */
  readonly insecure: boolean;
  /** Operators must show it; the destination's handler asks its peers itself. */
  readonly token?: string;
  readonly log: Logger;
  /** The biggest message that is taken; by default the wire's. */
  readonly maxFrameBytes?: number;
  /** The handler of peers, where guests may come in. Must attach its listeners before it returns. */
  readonly acceptMigration?: (socket: FrameSocket, peer: Peer) => void;
}

export interface AgentServer {
  /** With the port that was really taken. */
  readonly url: string;
  /** Takes no more connections and ends those that there are. Close the agent before. Idempotent. */
  close(): Promise<void>;
}

/** Rejects with `MigrationError`: `E_CONFIG`, `E_TLS`, `E_CONNECT`. */
export async function serveAgent(options: ServeOptions): Promise<AgentServer> {
  const { operations, log } = options;
  const side = startingSide(operations.role);
  const where = { side, phase: 'preflight', guestRunsOn: 'source' } as const;
  try {
    refuseOpenDoor(options);
    const listener = await Listener.listen(options.listen, listenerOptions(options));
    log.info({ url: listener.url }, `${operations.role} agent listens`);
    let closing: Promise<void> | undefined;
    return {
      url: listener.url,
      close: () => {
        closing ??= listener.close();
        return closing;
      },
    };
  } catch (thrown) {
    rethrowWireError(thrown, where);
  }
}

function listenerOptions(options: ServeOptions): ListenerOptions {
  const { operations, log, acceptMigration, tls, token, maxFrameBytes } = options;
  const onOperator: ConnectionHandler = (socket, peer) => {
    log.debug({ peer }, 'an operator connected');
    serveOperations(socket, operations, { log, ...(token === undefined ? {} : { token }) });
  };
  const onMigration: StreamHandler = (socket, peer) => {
    log.debug({ peer }, 'a peer connected');
    acceptMigration?.(socket, peer);
  };
  return {
    handlers: {
      [OPERATOR_PATH]: onOperator,
      ...(acceptMigration === undefined ? {} : { [MIGRATION_PATH]: onMigration, [DATA_PATH]: onMigration }),
    },
    insecure: options.insecure,
    ...(tls === undefined ? {} : { tls }),
    ...(maxFrameBytes === undefined ? {} : { maxMessageBytes: maxFrameBytes }),
    onRefused: (error, address) => log.warn({ address, code: error.code }, error.message),
  };
}

/**
 * Whoever reaches an agent moves guests. Encryption alone does not tell who that is: beyond this host a
 * token or certificates of the peers are asked for, unless the operator says otherwise.
 */
function refuseOpenDoor(options: ServeOptions): void {
  const address = parseAddress(options.listen);
  if (options.insecure || options.token !== undefined || options.tls?.ca !== undefined) return;
  if (address.kind === 'unix' || !address.tls) return;
  throw configError(
    `refusing to listen on ${options.listen}: anybody who reaches it could move guests`,
    'Give a token (--token-file) or an authority for the peers’ certificates (--ca), or allow it with --insecure.',
    startingSide(options.operations.role),
  );
}
