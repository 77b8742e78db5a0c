/** Which addresses a domain's NICs have, as far as its libvirt knows. */
import type { Nic } from '@vmferry/engine/guest';
import type { AddressSource, Domain } from '@vmferry/native/libvirt/domain';
import { LibvirtError } from '@vmferry/native/libvirt/errors';

/** A guest's agent may never answer. */
const ANSWER_MS = 2000;

/** From the leases of libvirt's networks, the host's ARP table and, where it is connected, the guest's agent. */
export async function withAddresses(
  domain: Pick<Domain, 'addresses'>,
  nics: readonly Nic[],
  xml: string,
): Promise<Nic[]> {
  if (nics.length === 0) return [];
  const sources: readonly AddressSource[] = hasAgent(xml) ? ['lease', 'arp', 'agent'] : ['lease', 'arp'];
  const told = (await Promise.all(sources.map((source) => addressesOf(domain, source)))).flat();
  return nics.map((nic) => {
    const own = told.filter(({ hardwareAddress }) => hardwareAddress.toLowerCase() === nic.mac);
    const found = own.flatMap(({ addresses }) => addresses.map(({ address }) => address));
    return { ...nic, addresses: [...new Set([...nic.addresses, ...found])] };
  });
}

/** What cannot be told is none: without addresses a guest is announced all the same, by its MAC. */
async function addressesOf(domain: Pick<Domain, 'addresses'>, source: AddressSource) {
  const signal = AbortSignal.timeout(ANSWER_MS);
  return await domain.addresses(source, { signal }).catch((error: unknown) => {
    if (error instanceof LibvirtError || signal.aborted) return [];
    throw error;
  });
}

function hasAgent(xml: string): boolean {
  return [...xml.matchAll(/<target\b[^>]*>/g)].some(
    ([target]) =>
      /name=['"]org\.qemu\.guest_agent\.0['"]/.test(target) && /state=['"]connected['"]/.test(target),
  );
}
