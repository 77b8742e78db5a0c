/** Addresses that a domain's libvirt knows, on the driver inside libvirt. */

import { readInterfaces } from '@vmferry/hypervisor/libvirt/domain-xml';
import { withAddresses } from '@vmferry/hypervisor/libvirt/source/domain-addresses';
import { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { AddressSource, Domain } from '@vmferry/native/libvirt/domain';
import { expect, test } from 'vitest';

const AGENT = `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>`;
const NIC = `<domain><devices><interface type='network'><mac address='52:54:00:AA:00:01'/></interface></devices></domain>`;

test('a NIC has the addresses that its network leased', async () => {
  const connection = await LibvirtConnection.open('test:///default');
  try {
    const domain = await connection.createTransient(`<domain type='test'><name>one</name>
      <memory>1024</memory><os><type>hvm</type></os><devices><interface type='network'>
      <source network='default'/><mac address='52:54:00:11:22:33'/></interface></devices></domain>`);
    const xml = await domain.xml();
    const [nic] = await withAddresses(domain, readInterfaces(xml), xml);
    expect(nic).toMatchObject({
      mac: '52:54:00:11:22:33',
      addresses: [expect.stringMatching(/^192\.168\.122\./)],
    });
  } finally {
    await connection.close();
  }
});

test('the agent is asked only where it is connected, and one that never answers is not waited for', async () => {
  const asked: AddressSource[] = [];
  const silent = {
    addresses: async (source: AddressSource, { signal }: { signal?: AbortSignal } = {}) => {
      asked.push(source);
      if (source === 'arp') {
        return [
          {
            name: 'vnet0',
            hardwareAddress: '52:54:00:aa:00:01',
            addresses: [{ family: 'ipv4', address: '10.0.0.2', prefix: 0 }],
          },
        ];
      }
      if (source === 'lease') return [];
      return await new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
    },
  } as unknown as Domain;
  const nics = readInterfaces(NIC);
  expect(await withAddresses(silent, nics, NIC)).toMatchObject([{ addresses: ['10.0.0.2'] }]);
  expect(asked).toEqual(['lease', 'arp']);
  expect(await withAddresses(silent, nics, NIC + AGENT)).toMatchObject([{ addresses: ['10.0.0.2'] }]);
  expect(asked.slice(2)).toEqual(['lease', 'arp', 'agent']);
});
