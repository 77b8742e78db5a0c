import { describe, expect, it } from 'vitest';
import { collectAddresses, readNeighbours } from '../../src/announce/addresses.ts';
import type { RunTool } from '../../src/announce/tools.ts';

const macA = '52:54:00:00:00:0a';
const macB = '52:54:00:00:00:0b';
const gateway = '52:54:00:00:00:01';

const table = (entries: object[]): RunTool => {
  return async (tool, args) => {
    expect([tool, ...args]).toEqual(['ip', '-j', 'neigh', 'show']);
    return JSON.stringify(entries);
  };
};

const collect = async (input: {
  nics: { mac: string; addresses: string[] }[];
  explicit?: string[];
  neighbours?: object[];
}) => {
  const { nics, notes } = collectAddresses({
    nics: input.nics,
    explicit: input.explicit ?? [],
    neighbours: await readNeighbours(table(input.neighbours ?? [])),
  });
  return {
    byMac: Object.fromEntries(nics.map(({ mac, ips }) => [mac.text, ips.map((ip) => ip.text)])),
    routers: nics.flatMap((nic) => [...nic.routers]),
    notes,
  };
};

describe('readNeighbours', () => {
  it('reads both families and skips what nobody answered for or no guest can own', async () => {
    const found = await readNeighbours(
      table([
        { dst: '10.0.0.2', dev: 'br0', lladdr: macA, state: ['STALE'] },
        { dst: 'fe80::a', dev: 'br0', lladdr: macA, router: null, state: ['REACHABLE'] },
        { dst: '10.0.0.3', dev: 'br0', state: ['FAILED'] },
        { dst: '10.0.0.4', dev: 'br0', lladdr: macA, state: ['FAILED'] },
        { dst: '10.0.0.5', dev: 'br0', lladdr: macA, state: ['INCOMPLETE'] },
        { dst: 'ff02::1', dev: 'br0', lladdr: '33:33:00:00:00:01', state: ['NOARP'] },
        { dst: '10.0.0.6', dev: 'gre0', lladdr: '10.1.1.1', state: ['PERMANENT'] },
      ]),
    );
    expect(found.map(({ mac, ip, router, confirmed }) => [mac.text, ip.text, router, confirmed])).toEqual([
      [macA, '10.0.0.2', false, false],
      [macA, 'fe80::a', true, true],
    ]);
  });

  it('takes an empty output for an empty table', async () => {
    expect(await readNeighbours(async () => '')).toEqual([]);
  });

  it.each(['no JSON', '{}', '[{"dst": 7}]'])('rejects %j', async (output) => {
    await expect(readNeighbours(async () => output)).rejects.toThrow();
  });
});

describe('collectAddresses', () => {
  it('joins what the operator, the source and the neighbour table know, each address once', async () => {
    const { byMac, notes } = await collect({
      nics: [{ mac: macA.toUpperCase(), addresses: ['10.0.0.2', 'FE80:0::A', '10.0.0.2'] }],
      explicit: ['10.0.0.9', '10.0.0.2'],
      neighbours: [
        { dst: 'fe80::a', lladdr: macA, state: ['STALE'] },
        { dst: '10.0.0.77', lladdr: macA, state: ['STALE'] },
        { dst: '10.0.0.78', lladdr: macB, state: ['STALE'] },
      ],
    });
    expect(byMac).toEqual({ [macA]: ['10.0.0.9', '10.0.0.2', 'fe80::a', '10.0.0.77'] });
    expect(notes).toEqual([]);
  });

  it('gives an address without MAC to the first NIC and one with a MAC to its own', async () => {
    const { byMac } = await collect({
      nics: [
        { mac: macA, addresses: [] },
        { mac: macB, addresses: [] },
      ],
      explicit: ['10.0.0.2', `${macB}=10.0.1.2`],
    });
    expect(byMac).toEqual({ [macA]: ['10.0.0.2'], [macB]: ['10.0.1.2'] });
  });

  it('notes what a source passed on and nobody can announce, and announces the rest', async () => {
    const { byMac, notes } = await collect({
      nics: [{ mac: macA, addresses: [] }],
      explicit: ['127.0.0.1', '01:00:5e:00:00:01=10.0.0.2', 'nonsense', '10.0.0.3'],
    });
    expect(byMac).toEqual({ [macA]: ['10.0.0.3'] });
    expect(notes).toEqual([
      'The address 127.0.0.1 is a loopback address; it is not announced',
      'The MAC address 01:00:5e:00:00:01 is a multicast address; it is not announced',
      '"nonsense" is not an IP address; it is not announced',
    ]);
  });

  it('notes an explicit address whose NIC the guest does not have', async () => {
    const { byMac, notes } = await collect({
      nics: [{ mac: macA, addresses: [] }],
      explicit: [`${macB}=10.0.1.2`],
    });
    expect(byMac).toEqual({ [macA]: [] });
    expect(notes).toEqual([expect.stringContaining(macB)]);
    expect((await collect({ nics: [], explicit: ['10.0.0.2'] })).notes).toHaveLength(1);
  });

  it('leaves out what cannot be announced, keeps the rest and notes each once', async () => {
    const { byMac, notes } = await collect({
      nics: [
        { mac: macA, addresses: ['127.0.0.1', '10.0.0.2', 'fe80::1%eth0', '::1'] },
        { mac: '00:00:00:00:00:00', addresses: ['10.0.0.3', '10.0.0.4'] },
      ],
    });
    expect(byMac).toEqual({ [macA]: ['10.0.0.2'] });
    expect(notes).toHaveLength(4);
  });

  it('does not announce an address that the guest claims and another machine owns, unless the operator says so', async () => {
    const neighbours = [{ dst: '10.0.0.1', lladdr: gateway, state: ['REACHABLE'] }];
    const nics = [{ mac: macA, addresses: ['10.0.0.1', '10.0.0.2'] }];
    const claimed = await collect({ nics, neighbours });
    expect(claimed.byMac).toEqual({ [macA]: ['10.0.0.2'] });
    expect(claimed.notes).toEqual([expect.stringContaining(gateway)]);
    const ordered = await collect({ nics, neighbours, explicit: ['10.0.0.1'] });
    expect(ordered.byMac[macA]).toContain('10.0.0.1');
  });

  it('trusts the guest more than a stale entry of the neighbour table', async () => {
    const { byMac } = await collect({
      nics: [{ mac: macA, addresses: ['10.0.0.2'] }],
      neighbours: [{ dst: '10.0.0.2', lladdr: gateway, state: ['STALE'] }],
    });
    expect(byMac).toEqual({ [macA]: ['10.0.0.2'] });
  });

  it('remembers which of the addresses are a router', async () => {
    const { routers } = await collect({
      nics: [{ mac: macA, addresses: ['fe80::a', 'fd00::a'] }],
      neighbours: [{ dst: 'fe80::a', lladdr: macA, router: null, state: ['REACHABLE'] }],
    });
    expect(routers).toEqual(['fe80::a']);
  });

  it('announces a bounded number of addresses and says how many it left out', async () => {
    const { byMac, notes } = await collect({
      nics: [{ mac: macA, addresses: Array.from({ length: 100 }, (_, i) => `10.0.1.${i}`) }],
    });
    expect(byMac[macA]).toHaveLength(64);
    expect(notes).toEqual([expect.stringContaining('100')]);
  });
});
