import type { Nic } from '@vmferry/engine/guest';
import { humanMonitor, type QmpExecutor, rxFilterReply, typed } from '../qmp/schema.ts';

interface NetClient {
  readonly name: string;
  readonly type: string;
  /** What QEMU says of it, e.g. "ifname=tap0,script=no,downscript=no". */
  readonly info: string;
}

/**
 * `info network` prints the hubs first, each with its clients below, then every other client with its peer
 * below:
 *
 *     hub 0
 *      \ hub0port1: tap1: index=0,type=tap,ifname=tap1,script=no
 *      \ hub0port0: nic1: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:57
 *     net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56
 *      \ n0: index=0,type=tap,ifname=tap0,script=no
 *
 * A group is a hub, or a client with its peer: whatever is joined to one another.
 */
const clientLine = /^(?: \\ )?(?:[^:]+: )?(?<name>[^:]+): index=\d+,type=(?<type>[^,]+),(?<info>.*)$/;

/** The guest's network devices, with the MAC addresses that they have now. */
export async function readNics(client: QmpExecutor): Promise<Nic[]> {
  const [filters, text] = await Promise.all([
    typed(client, 'query-rx-filter', rxFilterReply),
    humanMonitor(client, 'info network'),
  ]);
  // Only some devices have a filter to be asked for, but those know the address that the guest has set.
  const current = new Map(filters.map((filter) => [filter.name, filter['main-mac'].toLowerCase()]));
  return parseNics(text).map((nic) => ({ ...nic, mac: current.get(nic.name) ?? nic.mac }));
}

/** Reads the text of `info network`. Devices with several queues are listed once. */
export function parseNics(text: string): Nic[] {
  const found = new Map<string, Nic>();
  for (const group of groups(text)) {
    const hostInterface = group.map(tapOf).find((name) => name !== undefined);
    for (const { name, type, info } of group) {
      const mac = /(?:^|,)macaddr=((?:[0-9a-f]{2}:){5}[0-9a-f]{2})/i.exec(info)?.[1]?.toLowerCase();
      if (type !== 'nic' || mac === undefined || found.has(name)) continue;
      found.set(name, {
        mac,
        name,
        addresses: [],
        ...(hostInterface === undefined ? {} : { hostInterface }),
      });
    }
  }
  return [...found.values()];
}

function* groups(text: string): Generator<NetClient[]> {
  let group: NetClient[] = [];
  for (const line of text.split(/\r?\n/)) {
    if (!line.startsWith(' ')) {
      yield group;
      group = [];
    }
    const { name, type, info } = clientLine.exec(line)?.groups ?? {};
    if (name !== undefined && type !== undefined && info !== undefined) group.push({ name, type, info });
  }
  yield group;
}

/**
 * The tap; or the bridge that QEMU's helper put one into, whose name QEMU does not know. A tap that was handed to QEMU
 * as a descriptor has no name here.
 */
function tapOf({ type, info }: NetClient): string | undefined {
  return type === 'tap' ? /(?:^|,)(?:ifname|br)=([^,]+)/.exec(info)?.[1] : undefined;
}
