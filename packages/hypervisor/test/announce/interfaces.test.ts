import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseMac } from '@vmferry/engine/guest-address';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { portIsHeld, refreshFdb, resolveInterface } from '../../src/announce/interfaces.ts';
import { planAnnouncement } from '../../src/announce/plan.ts';
import type { RunTool } from '../../src/announce/tools.ts';
import { makeNetns, type Netns } from './support/netns.ts';

const mac = parseMac('52:54:00:12:34:56');
const noTool: RunTool = async (tool) => {
  throw new Error(`${tool} is not to be run here`);
};

describe('resolveInterface on a made-up sysfs', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'vmferry-announce-'));
  });
  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  const put = (path: string, content = '') => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), `${content}\n`);
  };
  const enslave = (port: string, master: string) => {
    put(`${port}/tun_flags`, '0x1002');
    put(`${master}/uevent`);
    symlinkSync(`../${master}`, join(root, port, 'master'));
  };
  const vlanBridge = () => {
    enslave('tap0', 'br0');
    put('tap0/brport/learning', '1');
    put('br0/bridge/vlan_filtering', '1');
  };
  const resolve = (name: string, run = noTool) => resolveInterface(name, { sysfsRoot: root, run });
  const vlans = (br0: object[], tap0: object[]): RunTool => {
    return async (tool, args) => {
      expect([tool, ...args]).toEqual(['bridge', '-j', 'vlan', 'show']);
      return JSON.stringify([
        { ifname: 'br0', vlans: br0 },
        { ifname: 'tap0', vlans: tap0 },
      ]);
    };
  };
  const pvid = (vlan: number) => ({ vlan, flags: ['PVID', 'Egress Untagged'] });

  it('sends on the bridge of a tap and refreshes the entry of the tap', async () => {
    enslave('tap0', 'br0');
    put('tap0/brport/learning', '1');
    put('br0/bridge/vlan_filtering', '0');
    expect(await resolve('tap0')).toEqual({
      type: 'send',
      interface: 'br0',
      fdb: { bridge: 'br0', port: 'tap0' },
      notes: [],
    });
  });

  it('leaves the table of a port that does not learn to those who keep it', async () => {
    enslave('tap0', 'br0');
    put('tap0/brport/learning', '0');
    put('br0/bridge/vlan_filtering', '0');
    expect(await resolve('tap0')).toEqual({ type: 'send', interface: 'br0', notes: [] });
  });

  it('sends untagged where bridge and tap share their VLAN', async () => {
    vlanBridge();
    expect(await resolve('tap0', vlans([pvid(5)], [pvid(5), { vlan: 9 }]))).toEqual({
      type: 'send',
      interface: 'br0',
      fdb: { bridge: 'br0', port: 'tap0', vlan: 5 },
      notes: [],
    });
  });

  it('tags frames with the VLAN of the tap where the untagged one of the bridge is another', async () => {
    vlanBridge();
    expect(await resolve('tap0', vlans([pvid(1), { vlan: 2, vlanEnd: 9 }], [pvid(5)]))).toMatchObject({
      type: 'send',
      interface: 'br0',
      vlan: 5,
      fdb: { vlan: 5 },
    });
  });

  it.each([
    ['the bridge is not in the VLAN of the tap', vlans([pvid(1)], [pvid(5)])],
    ['the tap has no untagged VLAN', vlans([pvid(1)], [{ vlan: 1, flags: [] }])],
    ['the VLANs cannot be read', noTool],
    ['the VLANs make no sense', async () => '[{"ifname": 7}]'],
  ])('sends nothing into a wrong VLAN when %s, and says so', async (_, run) => {
    vlanBridge();
    expect(await resolve('tap0', run)).toEqual({
      type: 'none',
      notes: [expect.stringContaining('announce-self')],
    });
  });

  it('sends nothing into Open vSwitch, and says so', async () => {
    enslave('tap0', 'ovs-system');
    expect(await resolve('tap0')).toEqual({
      type: 'none',
      notes: [expect.stringContaining('Open vSwitch')],
    });
  });

  it('sends on a macvtap itself', async () => {
    put('macvtap0/macvtap/tap6/dev');
    put('eth0/uevent');
    symlinkSync('../eth0', join(root, 'macvtap0', 'lower_eth0'));
    expect(await resolve('macvtap0')).toEqual({ type: 'send', interface: 'macvtap0', notes: [] });
  });

  it('sends on a bridge that was named itself, and on a plain interface', async () => {
    put('br0/bridge/vlan_filtering', '0');
    put('eth0/uevent');
    expect(await resolve('br0')).toEqual({ type: 'send', interface: 'br0', notes: [] });
    expect(await resolve('eth0')).toEqual({ type: 'send', interface: 'eth0', notes: [] });
  });

  it('sends on a tap without bridge, or with a master that is none, and notes what that means', async () => {
    put('tap0/tun_flags', '0x1002');
    enslave('tap1', 'vrf-blue');
    expect(await resolve('tap0')).toMatchObject({
      interface: 'tap0',
      notes: [expect.stringContaining('no bridge')],
    });
    expect(await resolve('tap1')).toMatchObject({
      interface: 'tap1',
      notes: [expect.stringContaining('vrf-blue')],
    });
  });

  it.each(['tap9', '', '.', '..', '../../etc', '-batch', 'a b', 'x'.repeat(16), 'tap0\0'])(
    'gives a note for %j, which is not there or no name at all',
    async (name) => {
      expect(await resolve(name)).toMatchObject({ type: 'none', notes: [expect.any(String)] });
    },
  );

  it('finds a port held as long as it has a carrier, or none that can be read', () => {
    put('tap0/carrier', '1');
    put('tap1/carrier', '0');
    put('tap2/uevent');
    expect(['tap0', 'tap1', 'tap2', 'tap3'].map((name) => portIsHeld(name, root))).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });

  it('plans only for NICs that have a place on this host, and keeps every note', async () => {
    enslave('tap0', 'br0');
    put('br0/bridge/vlan_filtering', '0');
    const nic = { name: 'net0', addresses: ['10.0.0.2', '127.0.0.1'], hostInterface: 'elsewhere' };
    const plan = await planAnnouncement({
      nics: [
        { ...nic, mac: mac.text },
        { ...nic, mac: '52:54:00:00:00:99' },
        { ...nic, mac: '52:54:00:00:00:98' },
      ],
      places: [
        { mac: mac.text.toUpperCase(), hostInterface: 'tap0' },
        { mac: '52:54:00:00:00:99' },
        { mac: '52:54:00:00:00:98', hostInterface: 'gone0' },
      ],
      explicit: [],
      run: noTool,
      sysfsRoot: root,
    });
    expect(plan.targets).toEqual([
      expect.objectContaining({
        mac,
        interface: 'br0',
        fdb: { bridge: 'br0', port: 'tap0' },
        addresses: [expect.objectContaining({ text: '10.0.0.2' })],
      }),
    ]);
    // The neighbour table, three loopback addresses, a NIC without interface, an interface that is not there.
    expect(plan.notes).toHaveLength(6);
  });
});

describe('refreshFdb', () => {
  it('names MAC, port and VLAN to bridge', async () => {
    const calls: string[] = [];
    const run: RunTool = async (tool, args) => {
      calls.push([tool, ...args].join(' '));
      return '';
    };
    expect(await refreshFdb(run, mac, { bridge: 'br0', port: 'tap0', vlan: 5 })).toBeUndefined();
    expect(calls).toEqual(['bridge fdb replace 52:54:00:12:34:56 dev tap0 master dynamic vlan 5']);
  });

  it('turns a failure into a note', async () => {
    expect(await refreshFdb(noTool, mac, { bridge: 'br0', port: 'tap0' })).toMatch(/br0.*not to be run here/);
  });
});

describe('interfaces of the kernel', () => {
  let host: Netns;
  beforeAll(async () => {
    host = await makeNetns('if');
    host.ip('link add br0 type bridge');
    host.ip('link set br0 up');
    host.ip('tuntap add tap0 mode tap');
    host.ip('link set tap0 master br0');
    host.ip('tuntap add tap1 mode tap');
    for (const pair of ['guest', 'uplink', 'wire']) {
      host.ip(`link add ${pair} type veth peer name ${pair}-peer`);
      host.ip(`link set ${pair} up`);
      host.ip(`link set ${pair}-peer up`);
    }
    host.ip('link set guest master br0');
    host.ip('link set uplink master br0');
    host.ip('link add link wire name mvtap0 type macvtap mode bridge');
  });
  afterAll(async () => {
    await host?.remove();
  });
  const resolve = (name: string) => resolveInterface(name, host);

  it('are told apart as they really look in sysfs', async () => {
    expect(await resolve('tap0')).toMatchObject({ interface: 'br0', fdb: { bridge: 'br0', port: 'tap0' } });
    expect(await resolve('guest')).toMatchObject({ interface: 'br0', fdb: { port: 'guest' } });
    expect(await resolve('tap1')).toMatchObject({ interface: 'tap1', notes: [expect.any(String)] });
    expect(await resolve('mvtap0')).toEqual({ type: 'send', interface: 'mvtap0', notes: [] });
    expect(await resolve('br0')).toEqual({ type: 'send', interface: 'br0', notes: [] });
    expect(await resolve('eth0')).toMatchObject({ type: 'none' });
  });

  it('let the entry for the MAC of a guest be moved from the uplink to its port', async () => {
    expect(await refreshFdb(host.run, mac, { bridge: 'br0', port: 'uplink' })).toBeUndefined();
    expect(await host.fdbPort('br0', mac.text)).toBe('uplink');
    expect(await refreshFdb(host.run, mac, { bridge: 'br0', port: 'guest' })).toBeUndefined();
    expect(await host.fdbPort('br0', mac.text)).toBe('guest');
  });

  it('refuse the entry on a port that does not forward, which becomes a note', async () => {
    const note = await refreshFdb(host.run, mac, { bridge: 'br0', port: 'tap0' });
    expect(note).toContain('not refreshed');
  });
});
