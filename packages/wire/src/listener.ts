/** An agent's server: WebSockets by path, over TCP with or without TLS, or on a Unix socket. */
import { lstat, unlink } from 'node:fs/promises';
import http, { type IncomingMessage, type RequestListener } from 'node:http';
import https from 'node:https';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type WebSocket, WebSocketServer } from 'ws';
import { type AgentAddress, formatAddress, parseAddress, refuseInsecure } from './address.ts';
import { asWireError, WireError } from './errors.ts';
import { DEFAULT_FRAME_LIMITS } from './frame.ts';
import type { FrameSocket } from './frame-socket.ts';
import { LaneSocket } from './lane-socket.ts';
import {
  type AgentPath,
  DATA_PATH,
  DEFAULT_HANDSHAKE_TIMEOUT_MS,
  secureContext,
  type TlsMaterial,
  tlsMaterialError,
} from './socket.ts';
import { takeOver } from './takeover.ts';

export interface Peer {
  /** What it asked for. */
  readonly path: AgentPath;
  /** Its address, "unix" on a Unix socket. */
  readonly address: string;
  readonly tls: boolean;
  /** Common name of the certificate that it proved to have. */
  readonly certificateName?: string;
}

/** Must attach its listeners (make its link) before it returns: what arrives without any is lost. */
export type ConnectionHandler = (socket: WebSocket, peer: Peer) => void;
/** As `ConnectionHandler`. Connections of `DATA_PATH` are on lanes where that can be. */
export type StreamHandler = (socket: FrameSocket, peer: Peer) => void;

export interface ListenerOptions {
  readonly handlers: Partial<
    Record<Exclude<AgentPath, typeof DATA_PATH>, ConnectionHandler> & Record<typeof DATA_PATH, StreamHandler>
  >;
  /** Needed for wss://: `cert` and `key`; with `ca`, every peer must have a certificate that it signed. */
  readonly tls?: TlsMaterial;
  /** Allows ws:// on addresses that other hosts reach. */
  readonly insecure?: boolean;
  readonly maxMessageBytes?: number;
  readonly maxConnections?: number;
  readonly handshakeTimeoutMs?: number;
  /** Answers plain HTTP requests (metrics, health). */
  readonly onRequest?: RequestListener;
  /** Somebody failed to get in. */
  readonly onRefused?: (error: WireError, address: string) => void;
}

const DEFAULT_MAX_CONNECTIONS = 256;
/** WebSocket close code "going away" (RFC 6455, section 7.4.1). */
const CLOSE_GOING_AWAY = 1001;
const CLOSE_TIMEOUT_MS = 1000;

export class Listener {
  /** With the port that was really taken. */
  readonly url: string;
  readonly #server: http.Server;
  readonly #connections: Connections;

  private constructor(url: string, server: http.Server, connections: Connections) {
    this.url = url;
    this.#server = server;
    this.#connections = connections;
  }

  /**
   * Listens; port 0 takes any that is free. Rejects with `WireError`: `E_INSECURE`, `E_TLS`, or `E_CONNECT`
   * when the address cannot be had.
   */
  static async listen(url: string, options: ListenerOptions): Promise<Listener> {
    const address = parseAddress(url);
    refuseInsecure(address, options.insecure ?? false, 'listen on');
    const server = makeServer(address, options);
    const connections = new Connections(server, options.maxConnections ?? DEFAULT_MAX_CONNECTIONS);
    const sockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: options.maxMessageBytes ?? DEFAULT_FRAME_LIMITS.maxFrameBytes,
    });
    server.on('upgrade', (request, socket, head) =>
      upgrade({ sockets, connections, options }, request, socket, head),
    );
    await start(server, address);
    const bound = server.address();
    const actual =
      address.kind === 'tcp' && typeof bound === 'object' && bound !== null
        ? { ...address, port: bound.port }
        : address;
    return new Listener(formatAddress(actual), server, connections);
  }

  /** Takes no more connections and ends those that there are. */
  async close(): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#connections.close();
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => {
      this.#connections.terminate();
      this.#server.closeAllConnections();
    }, CLOSE_TIMEOUT_MS);
    await Promise.all([stopped, this.#connections.ended()]);
    clearTimeout(timer);
  }
}

/** The open WebSockets. The server knows nothing of those on lanes, and would let too many in. */
class Connections {
  readonly #server: http.Server;
  readonly #max: number;
  readonly #open = new Set<FrameSocket>();
  readonly #waiting: (() => void)[] = [];

  constructor(server: http.Server, max: number) {
    this.#server = server;
    this.#max = max;
    this.#leaveRoom();
  }

  add(socket: FrameSocket): void {
    this.#open.add(socket);
    this.#leaveRoom();
    socket.on('close', () => {
      this.#open.delete(socket);
      this.#leaveRoom();
      if (this.#open.size === 0) for (const resolve of this.#waiting.splice(0)) resolve();
    });
  }

  close(): void {
    for (const socket of this.#open) socket.close(CLOSE_GOING_AWAY, 'the agent is shutting down');
  }

  terminate(): void {
    for (const socket of this.#open) socket.terminate();
  }

  /** Resolves when there are none. */
  ended(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #leaveRoom(): void {
    const lanes = [...this.#open].filter((socket) => socket instanceof LaneSocket).length;
    // Zero would be no limit at all.
    this.#server.maxConnections = this.#max - lanes || -1;
  }
}

function makeServer(address: AgentAddress, options: ListenerOptions): http.Server {
  const timeout = options.handshakeTimeoutMs ?? DEFAULT_HANDSHAKE_TIMEOUT_MS;
  const onRequest = options.onRequest ?? refuseRequest;
  const timeouts = { headersTimeout: timeout, requestTimeout: timeout, connectionsCheckingInterval: 1000 };
  if (!address.tls) return http.createServer({ ...timeouts, noDelay: true }, onRequest);
  const { tls } = options;
  if (tls?.cert === undefined || tls.key === undefined) {
    throw new WireError('E_TLS', `listening on ${formatAddress(address)} needs a certificate and its key`, {
      remedy: 'Give both (tls.cert, tls.key), or listen on ws://.',
    });
  }
  try {
    const mutual = tls.ca !== undefined;
    const server = https.createServer(
      {
        ...secureContext(tls),
        ...timeouts,
        noDelay: true,
        honorCipherOrder: true,
        handshakeTimeout: timeout,
        requestCert: mutual,
        rejectUnauthorized: mutual,
      },
      onRequest,
    );
    server.on('tlsClientError', (error, socket) => {
      const what = `a peer failed the TLS handshake: ${error.message}`;
      options.onRefused?.(new WireError('E_TLS', what, { cause: error }), socket.remoteAddress ?? 'unknown');
    });
    return server;
  } catch (error) {
    throw tlsMaterialError(error, `listening on ${formatAddress(address)}`);
  }
}

const refuseRequest: RequestListener = (_request, response) => {
  response.writeHead(426, { connection: 'close', 'content-type': 'text/plain' });
  response.end('This is a vmferry agent. It speaks WebSocket.\n');
};

async function start(server: http.Server, address: AgentAddress): Promise<void> {
  try {
    await listenOn(server, address);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE' && address.kind === 'unix' && (await isLeftBehind(address.path))) {
      await unlink(address.path);
      return await start(server, address);
    }
    const what =
      code === 'EADDRINUSE'
        ? 'something listens there already'
        : code === 'EADDRNOTAVAIL'
          ? 'this host does not have the address'
          : message;
    throw new WireError('E_CONNECT', `cannot listen on ${formatAddress(address)}: ${what}`, {
      remedy: 'Choose another address or port, or end what listens there.',
      cause: error,
    });
  }
}

function listenOn(server: http.Server, address: AgentAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port },
      () => {
        server.off('error', reject);
        resolve();
      },
    );
  });
}

/** Whether this is the socket of a process that ended and could not remove it. A file of another kind is not ours. */
async function isLeftBehind(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket() !== true) return false;
  return await new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

interface Upgrading {
  readonly sockets: WebSocketServer;
  readonly connections: Connections;
  readonly options: ListenerOptions;
}

function upgrade(
  { sockets, connections, options }: Upgrading,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  const asked = request.url ?? '';
  const path = Object.hasOwn(options.handlers, asked) ? (asked as AgentPath) : undefined;
  // Agents send no Origin. A browser does, and a web page that finds an agent on this host must get nowhere.
  const status =
    request.headers.origin !== undefined ? '403 Forbidden' : path === undefined ? '404 Not Found' : undefined;
  if (path === undefined || status !== undefined) {
    // A peer that is gone by now has nothing to be told.
    socket.on('error', () => {});
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    const address = request.socket.remoteAddress ?? 'unix';
    options.onRefused?.(
      new WireError('E_CONNECT', `a request for ${asked.slice(0, 200)}: ${status}`),
      address,
    );
    return;
  }
  sockets.handleUpgrade(request, socket, head, (accepted) => {
    // Before the connection leaves the socket that knows the peer.
    const peer = peerOf(request.socket, path);
    let stream: FrameSocket = accepted;
    try {
      if (path === DATA_PATH) {
        stream = takeOver(accepted, 'server', options.maxMessageBytes ?? DEFAULT_FRAME_LIMITS.maxFrameBytes);
        connections.add(stream);
        options.handlers[path]?.(stream, peer);
      } else {
        connections.add(accepted);
        options.handlers[path]?.(accepted, peer);
      }
    } catch (error) {
      // One connection's failure is no reason to end an agent that guests lean on.
      stream.on('error', () => {});
      stream.terminate();
      options.onRefused?.(asWireError(error, 'E_CONNECT', `a connection to ${path} failed`), peer.address);
    }
  });
}

function peerOf(socket: Socket | TLSSocket, path: AgentPath): Peer {
  const peer = { path, address: socket.remoteAddress ?? 'unix' };
  if (!('getPeerCertificate' in socket)) return { ...peer, tls: false };
  const name = socket.authorized ? socket.getPeerCertificate().subject?.CN : undefined;
  return name === undefined ? { ...peer, tls: true } : { ...peer, tls: true, certificateName: String(name) };
}
