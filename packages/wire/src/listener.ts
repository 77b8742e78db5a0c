/** An agent's server: WebSockets by path, over TCP with or without TLS, or on a Unix socket. */
import http, { type IncomingMessage, type RequestListener } from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type WebSocket, WebSocketServer } from 'ws';
import { type AgentAddress, formatAddress, parseAddress, refuseInsecure } from './address.ts';
import { WireError } from './errors.ts';
import { DEFAULT_FRAME_LIMITS } from './frame.ts';
import {
  type AgentPath,
  DEFAULT_HANDSHAKE_TIMEOUT_MS,
  secureContext,
  type TlsMaterial,
  tlsMaterialError,
} from './socket.ts';

export interface Peer {
  /** Its address, "unix" on a Unix socket. */
  readonly address: string;
  readonly tls: boolean;
  /** Common name of the certificate that it proved to have. */
  readonly certificateName?: string;
}

/** Must attach its listeners (make its link) before it returns: what arrives without any is lost. */
export type ConnectionHandler = (socket: WebSocket, peer: Peer) => void;

export interface ListenerOptions {
  readonly handlers: Partial<Record<AgentPath, ConnectionHandler>>;
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
  readonly #sockets: WebSocketServer;

  private constructor(url: string, server: http.Server, sockets: WebSocketServer) {
    this.url = url;
    this.#server = server;
    this.#sockets = sockets;
  }

  /**
   * Listens; port 0 takes any that is free. Rejects with `WireError`: `E_INSECURE`, `E_TLS`, or `E_CONNECT`
   * when the address cannot be had.
   */
  static async listen(url: string, options: ListenerOptions): Promise<Listener> {
    const address = parseAddress(url);
    refuseInsecure(address, options.insecure ?? false, 'listen on');
    const server = makeServer(address, options);
    server.maxConnections = options.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
    const sockets = new WebSocketServer({
      noServer: true,
      clientTracking: true,
      perMessageDeflate: false,
      maxPayload: options.maxMessageBytes ?? DEFAULT_FRAME_LIMITS.maxFrameBytes,
    });
    server.on('upgrade', (request, socket, head) => upgrade(sockets, options, request, socket, head));
    await start(server, address);
    const bound = server.address();
    const actual =
      address.kind === 'tcp' && typeof bound === 'object' && bound !== null
        ? { ...address, port: bound.port }
        : address;
    return new Listener(formatAddress(actual), server, sockets);
  }

  /** Takes no more connections and ends those that there are. */
  async close(): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets.clients) socket.close(CLOSE_GOING_AWAY, 'the agent is shutting down');
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => {
      for (const socket of this.#sockets.clients) socket.terminate();
      this.#server.closeAllConnections();
    }, CLOSE_TIMEOUT_MS);
    await stopped;
    clearTimeout(timer);
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

function start(server: http.Server, address: AgentAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      const what =
        error.code === 'EADDRINUSE'
          ? 'something listens there already'
          : error.code === 'EADDRNOTAVAIL'
            ? 'this host does not have the address'
            : error.message;
      reject(
        new WireError('E_CONNECT', `cannot listen on ${formatAddress(address)}: ${what}`, {
          remedy: 'Choose another address or port, or end what listens there.',
          cause: error,
        }),
      );
    };
    server.once('error', onError);
    server.listen(
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port },
      () => {
        server.off('error', onError);
        resolve();
      },
    );
  });
}

function upgrade(
  sockets: WebSocketServer,
  options: ListenerOptions,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  const path = request.url ?? '';
  const handler = Object.hasOwn(options.handlers, path) ? options.handlers[path as AgentPath] : undefined;
  // Agents send no Origin. A browser does, and a web page that finds an agent on this host must get nowhere.
  const status =
    request.headers.origin !== undefined
      ? '403 Forbidden'
      : handler === undefined
        ? '404 Not Found'
        : undefined;
  if (handler === undefined || status !== undefined) {
    // A peer that is gone by now has nothing to be told.
    socket.on('error', () => {});
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    const address = request.socket.remoteAddress ?? 'unix';
    options.onRefused?.(
      new WireError('E_CONNECT', `a request for ${path.slice(0, 200)}: ${status}`),
      address,
    );
    return;
  }
  sockets.handleUpgrade(request, socket, head, (accepted) => handler(accepted, peerOf(request.socket)));
}

function peerOf(socket: Socket | TLSSocket): Peer {
  const address = socket.remoteAddress ?? 'unix';
  if (!('getPeerCertificate' in socket)) return { address, tls: false };
  const name = socket.authorized ? socket.getPeerCertificate().subject?.CN : undefined;
  return name === undefined ? { address, tls: true } : { address, tls: true, certificateName: String(name) };
}
