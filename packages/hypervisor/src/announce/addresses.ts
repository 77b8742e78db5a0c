/** Which addresses are announced for each NIC, and where they are known from. */
import type { Nic } from '@vmferry/engine/guest';
import {
  AnnounceInputError,
  type GuestIp,
  type GuestMac,
  parseAnnounceIp,
  parseIp,
  parseMac,
} from '@vmferry/engine/guest-address';
import { z } from 'zod';
import type { RunTool } from './tools.ts';

/** A line of the host's neighbour table that says who owns an address. */
export interface Neighbour {
  readonly mac: GuestMac;
  readonly ip: GuestIp;
  /** The neighbour has advertised itself as a router (IPv6). */
  readonly router: boolean;
  /** The kernel heard from it lately, or was told for good; otherwise the entry may be old. */
  readonly confirmed: boolean;
}

export interface NicAddresses {
  readonly mac: GuestMac;
  /** Each once; those from the operator first. */
  readonly ips: readonly GuestIp[];
  /** Those of `ips` whose owner is known to be a router, as text. */
  readonly routers: ReadonlySet<string>;
}

export interface CollectedAddresses {
  readonly nics: readonly NicAddresses[];
  readonly notes: readonly string[];
}

/** More is no guest's own set but a mistake, or a router that answers for a whole net. */
const mostAddresses = 64;

/**
 * Everything that is known of each NIC's addresses, each once. What cannot be announced is left out and
 * noted.
 *
 * What the guest said of itself (`Nic.addresses` may come from its guest agent) is not announced where the
 * host knows another owner: a frame sent here passes by the filters that keep a guest from taking its
 * neighbour's address. What the operator gave is announced regardless.
 */
export function collectAddresses(sources: {
  readonly nics: readonly Pick<Nic, 'mac' | 'addresses'>[];
  /** What the operator gave with `--announce-ip`, and the source passed on. */
  readonly explicit: readonly string[];
  readonly neighbours: readonly Neighbour[];
}): CollectedAddresses {
  const { explicit, neighbours } = sources;
  const notes: string[] = [];
  const found = new Map<string, { mac: GuestMac; ips: Map<string, GuestIp>; dropped: number }>();
  const add = (mac: GuestMac, ip: GuestIp) => {
    const nic = found.get(mac.text);
    if (nic === undefined || nic.ips.has(ip.text)) return;
    if (nic.ips.size < mostAddresses) nic.ips.set(ip.text, ip);
    else nic.dropped++;
  };
  const noteErrors = (what: () => void) => {
    try {
      what();
    } catch (error) {
      if (!(error instanceof AnnounceInputError)) throw error;
      notes.push(`${error.message}; it is not announced`);
    }
  };

  const nics: { readonly mac: GuestMac; readonly addresses: readonly string[] }[] = [];
  for (const { mac: text, addresses } of sources.nics) {
    noteErrors(() => {
      const mac = parseMac(text);
      nics.push({ mac, addresses });
      if (!found.has(mac.text)) found.set(mac.text, { mac, ips: new Map(), dropped: 0 });
    });
  }

  const first = nics[0]?.mac;
  for (const text of explicit) {
    noteErrors(() => {
      const { mac = first, ip } = parseAnnounceIp(text);
      if (mac === undefined || !found.has(mac.text)) {
        notes.push(`The guest has no NIC ${mac?.text ?? 'at all'} to announce ${ip.text} for`);
      } else {
        add(mac, ip);
      }
    });
  }

  const owners = confirmedOwners(neighbours);
  for (const { mac, addresses } of nics) {
    for (const address of addresses) {
      noteErrors(() => {
        const ip = parseIp(address);
        const owner = owners.get(ip.text);
        if (owner === undefined || found.has(owner)) add(mac, ip);
        else notes.push(`${ip.text} is not announced for ${mac.text}: this host knows ${owner} as its owner`);
      });
    }
  }
  for (const { mac, ip } of neighbours) add(mac, ip);

  const routers = new Set(neighbours.filter((each) => each.router).map((each) => each.ip.text));
  return {
    nics: [...found.values()].map(({ mac, ips, dropped }) => {
      if (dropped > 0) {
        notes.push(`${mac.text} has ${mostAddresses + dropped} addresses; ${mostAddresses} are announced`);
      }
      return {
        mac,
        ips: [...ips.values()],
        routers: new Set([...ips.keys()].filter((ip) => routers.has(ip))),
      };
    }),
    notes,
  };
}

const neighbourSchema = z.array(
  z.object({
    dst: z.string(),
    lladdr: z.string().optional(),
    state: z.array(z.string()).default([]),
    // iproute2 prints the flag as a key with the value null.
    router: z.null().optional(),
  }),
);

const unknownStates = new Set(['FAILED', 'INCOMPLETE']);
const confirmedStates = new Set(['REACHABLE', 'PERMANENT', 'DELAY']);

/**
 * The host's neighbour table, IPv4 and IPv6, without entries that nobody answered for. Rejects when `ip`
 * fails or prints something else than its JSON.
 */
export async function readNeighbours(run: RunTool): Promise<readonly Neighbour[]> {
  const output = await run('ip', ['-j', 'neigh', 'show']);
  // Some versions print nothing at all for an empty table.
  const entries = neighbourSchema.parse(output.trim() === '' ? [] : JSON.parse(output));
  return entries.flatMap((entry) => {
    if (entry.lladdr === undefined || entry.state.some((state) => unknownStates.has(state))) return [];
    try {
      return [
        {
          mac: parseMac(entry.lladdr),
          ip: parseIp(entry.dst),
          router: entry.router === null,
          confirmed: entry.state.some((state) => confirmedStates.has(state)),
        },
      ];
    } catch (error) {
      // Multicast entries and tunnels' link addresses are in the same table; they are no guest's.
      if (error instanceof AnnounceInputError) return [];
      throw error;
    }
  });
}

/** Address to MAC, for the addresses that have one sure owner or several; the last one wins. */
function confirmedOwners(neighbours: readonly Neighbour[]): ReadonlyMap<string, string> {
  return new Map(
    neighbours.filter((each) => each.confirmed).map((each) => [each.ip.text, each.mac.text] as const),
  );
}
