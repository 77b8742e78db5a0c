/** Which addresses the guest has, as far as the source host knows: its agent's word and the neighbour table. */
import { messageOf } from '@vmferry/engine/errors';
import type { GuestDescription } from '@vmferry/engine/guest';
import { readNeighbours } from '@vmferry/hypervisor/announce/addresses';
import { runTool } from '@vmferry/hypervisor/announce/tools';
import { readGuestAddresses } from '@vmferry/hypervisor/qemu/inspect/guest-agent';

const MOST = 64;

/** Never rejects: an address that is not known is a note, not a failure. */
export async function knownAddresses(
  description: GuestDescription,
  guestAgent: string | undefined,
  note: (text: string) => void,
): Promise<GuestDescription> {
  if (description.nics.length === 0) return description;
  const known = new Map<string, Set<string>>(
    description.nics.map((nic) => [nic.mac.toLowerCase(), new Set(nic.addresses)]),
  );
  try {
    for (const { mac, ip } of await readNeighbours(runTool)) known.get(mac.text)?.add(ip.text);
  } catch (error) {
    note(`The neighbour table was not read: ${String(error)}`);
  }
  if (guestAgent !== undefined) {
    try {
      for (const [mac, ips] of await readGuestAddresses(guestAgent)) {
        for (const ip of ips) known.get(mac)?.add(ip);
      }
    } catch (error) {
      note(`The guest agent gave no addresses: ${messageOf(error)}`);
    }
  }
  return {
    ...description,
    nics: description.nics.map((nic) => ({
      ...nic,
      addresses: [...(known.get(nic.mac.toLowerCase()) ?? [])].slice(0, MOST),
    })),
  };
}
