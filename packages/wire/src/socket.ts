/** Opening WebSockets to an agent. What goes wrong is told as `WireError` with a remedy. */
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { WebSocket } from 'ws';
import { formatAddress, parseAddress, refuseInsecure } from './address.ts';
import { WireError } from './errors.ts';
import { DEFAULT_FRAME_LIMITS } from './frame.ts';
import type { FrameSocket } from './frame-socket.ts';
import { takeOver } from './takeover.ts';

export const MIGRATION_PATH = '/v1/migration';
/** For the data streams of a migration: whatever comes here is bulk. */
export const DATA_PATH = '/v1/data';
export const OPERATOR_PATH = '/v1/operator';
export type AgentPath = typeof MIGRATION_PATH | typeof DATA_PATH | typeof OPERATOR_PATH;

/** Contents of PEM files. */
export interface TlsMaterial {
  readonly cert?: Buffer;
  readonly key?: Buffer;
  /** Who may sign the other side's certificate. A listener that has one demands a certificate. */
  readonly ca?: Buffer;
}

export interface ConnectOptions {
  readonly path: AgentPath;
  readonly tls?: TlsMaterial;
  /** Allows ws:// to other hosts. */
  readonly insecure?: boolean;
  readonly maxMessageBytes?: number;
  readonly timeoutMs?: number;
}

export const DEFAULT_HANDSHAKE_TIMEOUT_MS = 10_000;
const NOT_FOUND = 404;

/** The suite first that was measured to be half as fast again as the default (AES-256). */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
].join(':');

export function secureContext(tls: TlsMaterial): SecureContextOptions {
  return {
    minVersion: 'TLSv1.2',
    ciphers: CIPHERS,
    ...(tls.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls.key === undefined ? {} : { key: tls.key }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
  };
}

/**
 * Opens a WebSocket to an agent. Rejects with `WireError`: `E_INSECURE`, `E_CONNECT` or `E_TLS`. Whoever
 * awaits it speaks first: an agent says nothing before it is spoken to.
 */
export function connect(url: string, options: ConnectOptions): Promise<WebSocket> {
  return open(url, options, (socket) => socket);
}

/**
 * Opens a stream for bulk data, on a lane where the connection allows it. As `connect` otherwise. An agent that
 * has no path for data (the first ones had none) takes it where it takes all the others.
 */
export async function connectData(url: string, options: Omit<ConnectOptions, 'path'>): Promise<FrameSocket> {
  const maxMessageBytes = options.maxMessageBytes ?? DEFAULT_FRAME_LIMITS.maxFrameBytes;
  const on = (path: AgentPath): Promise<FrameSocket> =>
    open(url, { ...options, path }, (socket) => takeOver(socket, 'client', maxMessageBytes));
  try {
    return await on(DATA_PATH);
  } catch (error) {
    if (!(error instanceof WireError) || httpStatusOf(error.cause) !== NOT_FOUND) throw error;
    return await on(MIGRATION_PATH);
  }
}

/** @param opened called before anything of the connection was read */
function open<T>(url: string, options: ConnectOptions, opened: (socket: WebSocket) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const address = parseAddress(url);
    refuseInsecure(address, options.insecure ?? false, 'connect to');
    const told = formatAddress(address);
    const socket = openSocket(`${told}${address.kind === 'unix' ? ':' : ''}${options.path}`, told, options);
    const onError = (error: Error) => reject(explainFailure(error, told, address.tls));
    socket.once('error', onError);
    socket.once('open', () => {
      socket.off('error', onError);
      resolve(opened(socket));
    });
  });
}

function openSocket(target: string, told: string, options: ConnectOptions): WebSocket {
  const context = secureContext(options.tls ?? {});
  try {
    // Made again for the connection, where a file that cannot be used would look like a broken connection.
    createSecureContext(context);
  } catch (error) {
    throw tlsMaterialError(error, `connecting to ${told}`);
  }
  return new WebSocket(target, {
    ...context,
    rejectUnauthorized: true,
    perMessageDeflate: false,
    followRedirects: false,
    handshakeTimeout: options.timeoutMs ?? DEFAULT_HANDSHAKE_TIMEOUT_MS,
    maxPayload: options.maxMessageBytes ?? DEFAULT_FRAME_LIMITS.maxFrameBytes,
    // Masking is against browsers' scripts talking to proxies and costs most of the throughput. `ws` leaves
    // the mask as it is, zero, and skips the work.
    generateMask: () => {},
  });
}

export function tlsMaterialError(error: unknown, doing: string): WireError {
  const why = error instanceof Error ? error.message : String(error);
  return new WireError('E_TLS', `${doing}: the certificate, key or CA cannot be used: ${why}`, {
    remedy: 'Check that the files are PEM, and that the key belongs to the certificate.',
    cause: error,
  });
}

interface Explanation {
  readonly code: 'E_CONNECT' | 'E_TLS';
  readonly what: string;
  readonly remedy: string;
}

const startAgent = 'Start the agent there, or check the address and the port.';
const checkNetwork = 'Check the address, the network between the hosts and their firewalls.';
const giveCa = 'Give the CA that signed its certificate (tls.ca), on both sides.';
const unknownCa: Explanation = {
  code: 'E_TLS',
  what: "the agent's certificate was not signed by a CA that is known here",
  remedy: giveCa,
};
const ourCertificate = (what: string, remedy: string): Explanation => ({ code: 'E_TLS', what, remedy });
const unreachable: Explanation = {
  code: 'E_CONNECT',
  what: 'the host cannot be reached',
  remedy: checkNetwork,
};
const noName: Explanation = {
  code: 'E_CONNECT',
  what: "the host's name is not known",
  remedy: 'Check the name, or use the address.',
};
const noTls: Explanation = {
  code: 'E_TLS',
  what: 'the agent does not speak TLS there',
  remedy: 'Use ws://, or give the agent a certificate.',
};

const explanations: Readonly<Record<string, Explanation>> = {
  ECONNREFUSED: { code: 'E_CONNECT', what: 'nothing listens there', remedy: startAgent },
  ENOENT: { code: 'E_CONNECT', what: 'there is no such socket', remedy: startAgent },
  EACCES: {
    code: 'E_CONNECT',
    what: 'permission denied',
    remedy: 'Run the command as the user of the agent.',
  },
  EMFILE: {
    code: 'E_CONNECT',
    what: 'no file descriptors are left here',
    remedy: 'Let the agent open more files (ulimit -n, systemd: LimitNOFILE).',
  },
  EHOSTUNREACH: unreachable,
  ENETUNREACH: unreachable,
  EHOSTDOWN: unreachable,
  ETIMEDOUT: { code: 'E_CONNECT', what: 'the host does not answer', remedy: checkNetwork },
  ENOTFOUND: noName,
  EAI_AGAIN: noName,
  CERT_HAS_EXPIRED: {
    code: 'E_TLS',
    what: "the agent's certificate has expired",
    remedy: "Renew the agent's certificate, and check both hosts' clocks.",
  },
  CERT_NOT_YET_VALID: {
    code: 'E_TLS',
    what: "the agent's certificate is not valid yet",
    remedy: "Check both hosts' clocks.",
  },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT: unknownCa,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: unknownCa,
  SELF_SIGNED_CERT_IN_CHAIN: unknownCa,
  DEPTH_ZERO_SELF_SIGNED_CERT: unknownCa,
  CERT_SIGNATURE_FAILURE: unknownCa,
  ERR_TLS_CERT_ALTNAME_INVALID: {
    code: 'E_TLS',
    what: "the agent's certificate is for another host",
    remedy: 'Connect by a name that is in the certificate, or make one for this name.',
  },
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: ourCertificate(
    'the agent demands a certificate, and none was given',
    'Give a certificate and its key (tls.cert, tls.key).',
  ),
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: ourCertificate(
    'the agent found no way to agree on TLS with us; it may demand a certificate',
    'Give a certificate and its key (tls.cert, tls.key).',
  ),
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: ourCertificate(
    'the agent does not know the CA that signed our certificate',
    'Use a certificate that is signed by the CA of the agent.',
  ),
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: ourCertificate('the agent refuses our certificate', giveCa),
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: ourCertificate(
    'the agent refuses our certificate, which has expired',
    "Renew our certificate, and check both hosts' clocks.",
  ),
};

function explainFailure(error: Error, url: string, tls: boolean): WireError {
  const key = String((error as { code?: unknown }).code);
  const { code, what, remedy } = explanations[key] ?? explainMessage(error, key, tls);
  return new WireError(code, `cannot connect to ${url}: ${what}`, { remedy, cause: error });
}

/** Of an answer that was no upgrade. `ws` gives it in words only. */
function httpStatusOf(error: unknown): number | undefined {
  const status = /^Unexpected server response: (\d+)/.exec(error instanceof Error ? error.message : '')?.[1];
  return status === undefined ? undefined : Number(status);
}

function explainMessage(error: Error, code: string, tls: boolean): Explanation {
  const status = httpStatusOf(error);
  if (status !== undefined) {
    return {
      code: 'E_CONNECT',
      what: `what answers there is no vmferry agent, or refuses us (HTTP status ${status})`,
      remedy: startAgent,
    };
  }
  if (error.message === 'Opening handshake has timed out') {
    return { code: 'E_CONNECT', what: 'it did not answer in time', remedy: checkNetwork };
  }
  // Node gives the reason of this one in words only.
  if (tls && /wrong version number|packet length too long/.test(error.message)) return noTls;
  const cut = code === 'ECONNRESET' || error.message === 'socket hang up' || code.startsWith('HPE_');
  if (cut && tls) {
    return ourCertificate(
      'the agent hung up during the TLS handshake; it may demand a certificate, or not accept ours',
      'Look into the log of the agent, and give a certificate that is signed by its CA.',
    );
  }
  if (cut) {
    return {
      code: 'E_CONNECT',
      what: 'the agent hung up; it may demand TLS, or have no file descriptors left',
      remedy:
        'Use wss:// if the agent has a certificate; let it open more files (LimitNOFILE) if it has none left.',
    };
  }
  if (code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_') || code === 'EPROTO') {
    return {
      code: 'E_TLS',
      what: error.message,
      remedy: 'Check the certificate, key and CA files of both agents.',
    };
  }
  return { code: 'E_CONNECT', what: error.message, remedy: checkNetwork };
}
