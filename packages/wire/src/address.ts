/** Where an agent listens: ws://HOST:PORT, wss://HOST:PORT, ws+unix:/PATH. */
import { BlockList, isIPv6 } from 'node:net';
import { WireError } from './errors.ts';

export type AgentAddress =
  | {
      readonly kind: 'tcp';
      readonly tls: boolean;
      /** Without brackets. */
      readonly host: string;
      readonly port: number;
    }
  | { readonly kind: 'unix'; readonly tls: false; readonly path: string };

const remedy = 'Write it as wss://HOST:PORT, ws://HOST:PORT or ws+unix:/PATH.';

/** Throws `WireError` (`E_CONNECT`). */
export function parseAddress(url: string): AgentAddress {
  const unixPath = /^ws\+unix:(?:\/\/)?(\/.+)$/.exec(url)?.[1];
  if (unixPath !== undefined) {
    // `ws` takes what follows a colon for the request's path.
    if (unixPath.includes(':'))
      throw new WireError('E_CONNECT', `the socket path ${unixPath} has a colon in it`);
    return { kind: 'unix', tls: false, path: unixPath };
  }
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || (parsed.protocol !== 'ws:' && parsed.protocol !== 'wss:')) {
    throw new WireError('E_CONNECT', `"${url}" is no agent's URL`, { remedy });
  }
  const { username, password, pathname, search, hash } = parsed;
  if (
    username !== '' ||
    password !== '' ||
    (pathname !== '' && pathname !== '/') ||
    search !== '' ||
    hash !== ''
  ) {
    throw new WireError('E_CONNECT', `"${url}" has more than a host and a port in it`, { remedy });
  }
  const tls = parsed.protocol === 'wss:';
  return {
    kind: 'tcp',
    tls,
    host: parsed.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: parsed.port === '' ? (tls ? 443 : 80) : Number(parsed.port),
  };
}

export function formatAddress(address: AgentAddress): string {
  if (address.kind === 'unix') return `ws+unix:${address.path}`;
  const host = isIPv6(address.host) ? `[${address.host}]` : address.host;
  return `${address.tls ? 'wss' : 'ws'}://${host}:${address.port}`;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function isLoopback(host: string): boolean {
  return host === 'localhost' || loopback.check(host, isIPv6(host) ? 'ipv6' : 'ipv4');
}

/** Throws `WireError` (`E_INSECURE`) for plain text that leaves this host, unless that was allowed. */
export function refuseInsecure(
  address: AgentAddress,
  insecure: boolean,
  doing: 'connect to' | 'listen on',
): void {
  if (insecure || address.kind === 'unix' || address.tls || isLoopback(address.host)) return;
  throw new WireError(
    'E_INSECURE',
    `refusing to ${doing} ${formatAddress(address)}: a guest's memory would cross the network in plain text`,
  );
}
