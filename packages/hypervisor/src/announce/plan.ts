/** From what is known of a guest's NICs to the targets of its announcement. */
import { messageOf } from '@vmferry/engine/errors';
import type { Nic } from '@vmferry/engine/guest';
import { collectAddresses, type Neighbour, readNeighbours } from './addresses.ts';
import type { AnnounceTarget } from './announcer.ts';
import { resolveInterface } from './interfaces.ts';
import type { RunTool } from './tools.ts';

/** Where a NIC is attached on this host. */
export interface NicPlace {
  readonly mac: string;
  /** As `Nic.name`. */
  readonly name?: string;
  /** Undefined when the hypervisor does not tell (user-mode networking, vhost-user). */
  readonly hostInterface?: string;
}

export interface AnnouncePlan {
  readonly targets: readonly AnnounceTarget[];
  /** NICs and addresses that are not announced from here, and why. */
  readonly notes: readonly string[];
}

/**
 * Meant for the time before the cutover: it runs `ip` and `bridge`. Reads only, and never rejects for what
 * it cannot find out.
 */
export async function planAnnouncement(input: {
  /** As the source described them, in the guest's order; their `hostInterface` is the source's own. */
  readonly nics: readonly Nic[];
  /** As this host's hypervisor has them. */
  readonly places: readonly NicPlace[];
  /** As `--announce-ip` has them. */
  readonly explicit: readonly string[];
  readonly run: RunTool;
  readonly sysfsRoot?: string;
}): Promise<AnnouncePlan> {
  const notes: string[] = [];
  let neighbours: readonly Neighbour[] = [];
  try {
    neighbours = await readNeighbours(input.run);
  } catch (error) {
    notes.push(
      `The neighbour table was not read (${messageOf(error)}); ` +
        'addresses that only it knows are not announced',
    );
  }
  const collected = collectAddresses({ nics: input.nics, explicit: input.explicit, neighbours });
  notes.push(...collected.notes);

  const lookup = {
    run: input.run,
    ...(input.sysfsRoot === undefined ? {} : { sysfsRoot: input.sysfsRoot }),
  };
  const targets: AnnounceTarget[] = [];
  for (const { mac, ips, routers } of collected.nics) {
    const place = placeOf(mac.text, input);
    if (place?.hostInterface === undefined) {
      notes.push(
        `No host interface is known for ${mac.text}; its announcement is left to the hypervisor's announce-self`,
      );
      continue;
    }
    const route = await resolveInterface(place.hostInterface, lookup);
    notes.push(...route.notes);
    if (route.type === 'none') continue;
    const { interface: name, vlan, fdb } = route;
    targets.push({
      mac,
      addresses: ips,
      routers,
      interface: name,
      ...(vlan === undefined ? {} : { vlan }),
      ...(fdb === undefined ? {} : { fdb }),
      port: place.hostInterface,
    });
  }
  return { targets, notes };
}

/**
 * A guest may have given a NIC another address than it was started with, which this host's hypervisor learns with the
 * guest's state only. Then the NIC's name tells which it is, or its place in line.
 */
function placeOf(
  mac: string,
  { nics, places }: { readonly nics: readonly Nic[]; readonly places: readonly NicPlace[] },
): NicPlace | undefined {
  const known = places.find((each) => sameMac(each.mac, mac));
  if (known) return known;
  const index = nics.findIndex((nic) => sameMac(nic.mac, mac));
  const isAnothers = (place: NicPlace) => nics.some((nic) => sameMac(nic.mac, place.mac.toLowerCase()));
  const named = places.find(({ name }) => name !== undefined && name === nics[index]?.name);
  const inLine = nics.length === places.length ? places[index] : undefined;
  return [named, inLine].find((place) => place !== undefined && !isAnothers(place));
}

function sameMac(text: string, canonical: string): boolean {
  return text.toLowerCase().replaceAll('-', ':') === canonical;
}
