/**
 * Which addresses a host has, and which TCP ports are taken there, as its kernel tells of a network namespace
 * (`/proc/PID/net`: `fib_trie`, `if_inet6`, `tcp`, `tcp6`). Nothing is bound.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatIp } from '@vmferry/engine/guest-address';
import type { HostListening } from './host-facts.ts';

const LISTENS = '0A';

/** @param root where the host's own `/` is for this agent. Undefined where its `/proc` tells nothing. */
export async function hostListening(root: string): Promise<HostListening | undefined> {
  const net = networkOf(root);
  const read = async (path: string) => await readFile(path, 'utf8').catch(() => undefined);
  const [trie, six, tcp, tcp6, ...nonlocal] = await Promise.all([
    ...['fib_trie', 'if_inet6', 'tcp', 'tcp6'].map((name) => read(join(net, name))),
    ...['ipv4', 'ipv6'].map((family) => read(join('/proc/sys/net', family, 'ip_nonlocal_bind'))),
  ]);
  if (trie === undefined) return undefined;
  return {
    addresses: new Set([...localIpv4(trie), ...localIpv6(six ?? '')]),
    anyAddress: nonlocal.some((setting) => setting?.trim() === '1'),
    taken: [...listeners(tcp ?? ''), ...listeners(tcp6 ?? '')],
  };
}

/** A process's own is named by its root, a host's by its first process. */
function networkOf(root: string): string {
  if (root === '/') return '/proc/self/net';
  const [process] = /^\/proc\/\d+(?=\/root\/?$)/.exec(root) ?? [];
  return process === undefined ? join(root, 'proc/1/net') : join(process, 'net');
}

/** Of `127.0.0.0/8` all are local, and only one is listed. */
function localIpv4(trie: string): string[] {
  return [...trie.matchAll(/\|-- ([\d.]+)\n\s+\/32 host LOCAL/g)].map(([, address]) => address!);
}

function localIpv6(table: string): string[] {
  return [...table.matchAll(/^([0-9a-f]{32}) /gm)].map(([, hex]) => formatIp(Buffer.from(hex!, 'hex')));
}

/** Addresses are words of the host's own byte order. */
function listeners(table: string): HostListening['taken'] {
  return table.split('\n').flatMap((line) => {
    const [, local = '', , state] = line.trim().split(/\s+/);
    const [hex = '', port = ''] = local.split(':');
    if (state !== LISTENS || !/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return [];
    const address = formatIp(Buffer.from(hex, 'hex').swap32());
    return [{ address, port: Number.parseInt(port, 16) }];
  });
}
