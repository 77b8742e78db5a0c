import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeNetns, type Netns } from './support/netns.ts';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

interface Outcome {
  readonly planNotes: string[];
  readonly frames: number;
  readonly interfaces: string[];
  readonly notes: string[];
  readonly sentAtOnce: number;
  readonly totalMs: number;
}

/** Runs the announcement inside `host`. */
async function announceFrom(host: Netns, input: object): Promise<Outcome> {
  const program = ['--import', here('support/typescript-hooks.mjs'), here('support/announce-program.ts')];
  const { stdout } = await promisify(execFile)('ip', [
    ...['netns', 'exec', host.name, process.execPath],
    ...program,
    JSON.stringify(input),
  ]);
  return JSON.parse(stdout);
}

/**
 *     guest's old place ────────────── port-a ┐
 *     hostb: tap0 ─ br0 ─ uplink ───── port-b ├ switch
 *     client: uplink ───────────────── port-c │
 *     hostb: mvtap0 ─ mv-uplink ────── port-d ┘
 */
describe('a guest announced at its new place', () => {
  const named = '52:54:00:aa:00:01';
  const nameless = '52:54:00:aa:00:02';
  const onMacvtap = '52:54:00:aa:00:03';
  const elsewhere = '02:00:00:00:00:99';
  const all: Netns[] = [];
  let sw: Netns;
  let hostb: Netns;
  let client: Netns;
  let outcome: Outcome;

  const clientNeighbour = async (address: string) => {
    const [entry] = JSON.parse(await client.run('ip', ['-j', 'neigh', 'show', address]));
    return entry?.lladdr;
  };

  beforeAll(async () => {
    const make = async (label: string) => {
      const made = await makeNetns(label);
      all.push(made);
      return made;
    };
    sw = await make('sw');
    hostb = await make('hostb');
    client = await make('client');
    const old = await make('hosta');

    sw.ip('link add switch type bridge');
    sw.ip('link set switch up');
    for (const [port, host, end] of [
      ['port-a', old, 'uplink'],
      ['port-b', hostb, 'uplink'],
      ['port-c', client, 'uplink'],
      ['port-d', hostb, 'mv-uplink'],
    ] as const) {
      sw.ip(`link add name ${port} type veth peer name ${end} netns ${host.name}`);
      sw.ip(`link set dev ${port} master switch up`);
      host.ip(`link set dev ${end} up`);
    }
    hostb.ip('link add br0 type bridge');
    hostb.ip('link set br0 up');
    hostb.ip('link add tap0 type veth peer name guest0');
    hostb.ip('link set tap0 master br0 up');
    hostb.ip('link set guest0 up');
    hostb.ip('link set uplink master br0');
    hostb.ip('link add link mv-uplink name mvtap0 type macvtap mode bridge');
    hostb.ip('link set mvtap0 up');
    client.ip('address add 10.77.0.9/24 dev uplink');
    client.ip('address add fd77::9/64 dev uplink nodad');

    const forwards = (host: Netns, port: string) =>
      readFileSync(`${host.sysfsRoot}/${port}/brport/state`, 'utf8').trim() === '3';
    await vi.waitFor(
      () => {
        for (const port of ['port-a', 'port-b', 'port-c', 'port-d']) expect(forwards(sw, port)).toBe(true);
        for (const port of ['tap0', 'uplink']) expect(forwards(hostb, port)).toBe(true);
      },
      { timeout: 10_000 },
    );

    // What everyone knows while the guest is at its old place, and two addresses whose owner will change.
    for (const mac of [named, nameless, onMacvtap]) {
      await sw.run('bridge', ['fdb', 'replace', mac, 'dev', 'port-a', 'master', 'dynamic']);
      await hostb.run('bridge', ['fdb', 'replace', mac, 'dev', 'uplink', 'master', 'dynamic']);
      expect(await sw.fdbPort('switch', mac)).toBe('port-a');
    }
    for (const address of ['10.77.0.2', 'fd77::2']) {
      client.ip(`neigh replace ${address} lladdr ${elsewhere} dev uplink nud stale`);
      expect(await clientNeighbour(address)).toBe(elsewhere);
    }

    outcome = await announceFrom(hostb, {
      nics: [
        { mac: named, name: 'net0', addresses: ['10.77.0.2', 'fd77::2'] },
        { mac: nameless, name: 'net1', addresses: [] },
        { mac: onMacvtap, name: 'net2', addresses: [] },
      ],
      places: [
        { mac: named, hostInterface: 'tap0' },
        { mac: nameless, hostInterface: 'tap0' },
        { mac: onMacvtap, hostInterface: 'mvtap0' },
      ],
    });
  }, 60_000);

  afterAll(async () => {
    for (const host of all) await host.remove();
  });

  it('has every frame of seven rounds sent within two seconds or so, the first round at once', () => {
    expect(outcome).toMatchObject({ planNotes: [], notes: [], interfaces: ['br0', 'mvtap0'] });
    expect(outcome.frames).toBe(7 * (2 + 1 + 1 + 1));
    expect(outcome.sentAtOnce).toBe(2 + 1 + 1 + 1);
    expect(outcome.totalMs).toBeGreaterThanOrEqual(1790);
  });

  it('is found by the switch on the port of its new host, with and without an address', async () => {
    expect(await sw.fdbPort('switch', named)).toBe('port-b');
    expect(await sw.fdbPort('switch', nameless)).toBe('port-b');
    expect(await sw.fdbPort('switch', onMacvtap)).toBe('port-d');
  });

  it('is found by the bridge of its new host on its tap', async () => {
    expect(await hostb.fdbPort('br0', named)).toBe('tap0');
    expect(await hostb.fdbPort('br0', nameless)).toBe('tap0');
  });

  it('is believed by the kernel of a client, for IPv4 and IPv6', async () => {
    expect(await clientNeighbour('10.77.0.2')).toBe(named);
    expect(await clientNeighbour('fd77::2')).toBe(named);
  });
});
