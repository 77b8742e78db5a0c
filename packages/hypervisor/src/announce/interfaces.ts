/**
 * Where the frames that announce a NIC must be sent so that the network sees them come from the guest's
 * new port.
 *
 * - Tap in a Linux bridge: on the bridge's own device; from there they leave by every port, the tap's too:
 *   the guest hears its own announcement. Linux learns no source address from what its own bridge device
 *   sends, so the local forwarding table goes on pointing at the uplink, and neighbours on this same host
 *   lose the guest until it speaks or its hypervisor does so for it. Hence the entry to refresh.
 * - macvtap: on the macvtap itself, exactly as the guest's own frames go. On its lower device they would
 *   miss the other macvtaps of that device.
 * - Port of Open vSwitch: nowhere. A frame sent on the bridge's internal port would teach the switch that
 *   the guest lives there; only the guest's side of the tap can speak for it.
 */
import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { messageOf } from '@vmferry/engine/errors';
import type { GuestMac } from '@vmferry/engine/guest-address';
import { z } from 'zod';
import type { RunTool } from './tools.ts';

/** An entry of a Linux bridge's forwarding table that is to point to `port`. */
export interface FdbEntry {
  readonly bridge: string;
  readonly port: string;
  readonly vlan?: number;
}

export type AnnounceRoute =
  | {
      readonly type: 'send';
      readonly interface: string;
      /** Frames carry an 802.1Q tag with this VLAN. */
      readonly vlan?: number;
      readonly fdb?: FdbEntry;
      readonly notes: readonly string[];
    }
  /** Frames cannot be sent from here; the notes say why, and the hypervisor's announce-self must do. */
  | { readonly type: 'none'; readonly notes: readonly string[] };

export interface InterfaceLookup {
  readonly run: RunTool;
  /** `/sys/class/net` unless told. */
  readonly sysfsRoot?: string;
}

/** Whether a hypervisor has this tap or macvtap open: the kernel takes the carrier away when the last has let go of it. */
export function portIsHeld(name: string, sysfsRoot = '/sys/class/net'): boolean {
  const port = join(sysfsRoot, name);
  if (!exists(port)) return false;
  try {
    return readFileSync(join(port, 'carrier'), 'utf8').trim() !== '0';
  } catch {
    // That of an interface that is down cannot be read.
    return true;
  }
}

/** Reads only. Never rejects: what cannot be found out becomes a note. */
export async function resolveInterface(name: string, lookup: InterfaceLookup): Promise<AnnounceRoute> {
  const root = lookup.sysfsRoot ?? '/sys/class/net';
  if (!isInterfaceName(name)) return none(`${JSON.stringify(name)} is not the name of a network interface`);
  const at = (...parts: string[]) => join(root, ...parts);
  if (!exists(at(name))) return none(`This host has no network interface ${name}`);
  if (exists(at(name, 'macvtap')) || exists(at(name, 'bridge'))) return send(name);

  const master = linkTarget(at(name, 'master'));
  if (master === undefined) {
    if (!exists(at(name, 'tun_flags'))) return send(name);
    return send(
      name,
      `${name} is in no bridge: what is sent on it reaches only the guest; ` +
        "if the guest is routed, announcing its route is the router's task",
    );
  }
  if (exists(at(master, 'bridge'))) return bridgeRoute(name, master, at, lookup.run);
  if (master.startsWith('ovs-')) {
    return none(`${name} is a port of Open vSwitch, where only the guest's side can announce its MAC`);
  }
  return send(name, `${name} belongs to ${master}, which is no bridge; frames are sent on ${name} itself`);
}

/**
 * Points the local bridge's forwarding table to the guest's port, as if the guest had spoken. Gives a note
 * when that was not possible, which is never fatal: the guest's first frame does the same.
 */
export async function refreshFdb(run: RunTool, mac: GuestMac, entry: FdbEntry): Promise<string | undefined> {
  const vlan = entry.vlan === undefined ? [] : ['vlan', String(entry.vlan)];
  try {
    await run('bridge', ['fdb', 'replace', mac.text, 'dev', entry.port, 'master', 'dynamic', ...vlan]);
    return undefined;
  } catch (cause) {
    return (
      `The forwarding table of ${entry.bridge} was not refreshed for ${mac.text} (${messageOf(cause)}); ` +
      'it follows with the first frame that the guest sends'
    );
  }
}

async function bridgeRoute(
  tap: string,
  bridge: string,
  at: (...parts: string[]) => string,
  run: RunTool,
): Promise<AnnounceRoute> {
  // A port that does not learn has a table kept by someone else (libvirt's macTableManager), with static
  // entries that must not turn into ones that age.
  const learns = firstLine(at(tap, 'brport', 'learning')) !== '0';
  if (firstLine(at(bridge, 'bridge', 'vlan_filtering')) !== '1') {
    return { type: 'send', interface: bridge, ...(learns ? { fdb: { bridge, port: tap } } : {}), notes: [] };
  }

  let vlans: VlanTable;
  try {
    vlans = parseVlans(await run('bridge', ['-j', 'vlan', 'show']));
  } catch (cause) {
    return none(
      `${bridge} filters VLANs, and which one ${tap} is in could not be read (${messageOf(cause)})`,
    );
  }
  const vlan = vlans.get(tap)?.find((each) => each.pvid)?.vlan;
  if (vlan === undefined) {
    return none(
      `${tap} has no VLAN of its own on ${bridge}; the guest tags its frames, so only it can announce`,
    );
  }
  const own = vlans.get(bridge)?.find((each) => each.vlan === vlan);
  if (own === undefined) {
    return none(`The bridge ${bridge} itself is not in VLAN ${vlan} of ${tap}, so it can send nothing there`);
  }
  return {
    type: 'send',
    interface: bridge,
    ...(own.pvid ? {} : { vlan }),
    ...(learns ? { fdb: { bridge, port: tap, vlan } } : {}),
    notes: [],
  };
}

type VlanTable = ReadonlyMap<string, readonly { readonly vlan: number; readonly pvid: boolean }[]>;

const vlanSchema = z.array(
  z.object({
    ifname: z.string(),
    vlans: z.array(
      z.object({
        vlan: z.int().min(1).max(4094),
        vlanEnd: z.int().min(1).max(4094).optional(),
        flags: z.array(z.string()).default([]),
      }),
    ),
  }),
);

/** `bridge -j vlan show`, ranges spelled out. */
function parseVlans(json: string): VlanTable {
  const ports = vlanSchema.parse(JSON.parse(json));
  return new Map(
    ports.map(({ ifname, vlans }) => [
      ifname,
      vlans.flatMap(({ vlan, vlanEnd, flags }) => {
        const count = Math.max(1, (vlanEnd ?? vlan) - vlan + 1);
        return Array.from({ length: count }, (_, i) => ({ vlan: vlan + i, pvid: flags.includes('PVID') }));
      }),
    ]),
  );
}

/** What the kernel accepts as a name, less those that a tool would take for an option. */
function isInterfaceName(name: string): boolean {
  return !name.includes('\0') && /^[^\s/:-][^\s/:]{0,14}$/.test(name) && name !== '.' && name !== '..';
}

function send(name: string, ...notes: string[]): AnnounceRoute {
  return { type: 'send', interface: name, notes };
}

function none(why: string): AnnounceRoute {
  return { type: 'none', notes: [`${why}; the announcement is left to the hypervisor's announce-self`] };
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** The last part of where a symbolic link points; undefined if there is none. */
function linkTarget(path: string): string | undefined {
  try {
    return basename(readlinkSync(path));
  } catch {
    return undefined; // no master: the file does not exist
  }
}

function firstLine(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').split('\n', 1)[0];
  } catch {
    return undefined; // a kernel built without the feature has no such file
  }
}
