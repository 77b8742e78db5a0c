import { isIP, isIPv4 } from 'node:net';
import type { DomainGraphics } from '../../xml/domain-shape.ts';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal } from '../finding.ts';
import type { HostFacts, HostListening } from '../host-facts.ts';

const ANY = ['0.0.0.0', '::'];
/** Where libvirt has graphics listen by default. */
const DEFAULT = '127.0.0.1';

const CHANGE = 'with --dest-xml (graphics-listen)';

/** QEMU does not start where it cannot listen. */
export function graphicsRule({ shape }: DomainFacts, facts: HostFacts): Finding[] {
  return shape.graphics.flatMap((graphics) => [
    ...addressFindings(graphics, facts),
    ...portFindings(graphics, facts),
  ]);
}

function addressFindings({ type, listen }: DomainGraphics, facts: HostFacts): Finding[] {
  const { host, listening, networks } = facts;
  const of = `the guest's graphics (${type})`;
  if (listen.type === 'network') {
    const network = networks.get(listen.network);
    if (network?.active === true) return [];
    return [
      refusal(
        'E_NO_NETWORK',
        `${of} listen on libvirt's network "${listen.network}", which ${network ? 'is not active on ' : ''}${host.name}${network ? '' : ' does not have'}`,
        `${network ? `Start it there (virsh net-start ${listen.network})` : 'Define it there (virsh net-define)'}, or name another one ${CHANGE}.`,
      ),
    ];
  }
  const address = addressOf(listen);
  if (address === undefined || listening === undefined || listening.anyAddress) return [];
  if (ANY.includes(address) || isLoopback(address) || listening.addresses.has(address)) return [];
  return [
    refusal(
      'E_NO_NETWORK',
      `${of} listen on ${address}, which is no address of ${host.name}`,
      `Let them listen on one of its own, on 127.0.0.1 or on 0.0.0.0, ${CHANGE}.`,
    ),
  ];
}

function portFindings({ type, listen, ports }: DomainGraphics, { host, listening }: HostFacts): Finding[] {
  if (listen.type === 'none' || listening === undefined) return [];
  const address = addressOf(listen);
  return ports
    .filter((port) => listening.taken.some((each) => each.port === port && meet(each, address)))
    .map((port) =>
      refusal(
        'E_NO_NETWORK',
        `the guest's graphics (${type}) have the fixed port ${port}, at which something on ${host.name} listens already`,
        `End that (ss -ltnp sport = :${port}), or give the graphics another port, or autoport="yes", ${CHANGE}.`,
      ),
    );
}

/** As the kernel's are written; undefined where it is not known: of a name, a network, or with a zone. */
function addressOf(listen: DomainGraphics['listen']): string | undefined {
  if (listen.type !== 'address') return undefined;
  const { address } = listen;
  if (address === '') return DEFAULT;
  if (isIP(address) === 0 || address.includes('%')) return undefined;
  return isIPv4(address) ? address : new URL(`http://[${address}]`).hostname.slice(1, -1);
}

const isLoopback = (address: string): boolean => address === '::1' || address.startsWith('127.');

/** Whether a socket that listens keeps another one from it. What listens on `::` takes IPv4 in, too, by default. */
function meet({ address: taken }: HostListening['taken'][number], wanted: string | undefined): boolean {
  if (taken === '::' || wanted === '::') return true;
  if (taken === '0.0.0.0') return wanted === undefined || isIPv4(wanted);
  return taken === wanted || (wanted === '0.0.0.0' && isIPv4(taken));
}
