import { describe, expect, test } from 'vitest';
import { identityOf, readInterfaces } from '../../src/libvirt/domain-xml.ts';
import { daemonSockets, libvirtOptions, parseDomainAddress } from '../../src/libvirt/options.ts';

describe('a domain’s address', () => {
  test.each([
    ['web', { name: 'web', uri: 'qemu:///system' }],
    ['a?b', { name: 'a?b', uri: 'qemu:///system' }],
    [
      'web?connect=qemu+unix:///system?socket=/run/x',
      { name: 'web', uri: 'qemu+unix:///system?socket=/run/x' },
    ],
  ])('%s is read', (text, address) => {
    expect(parseDomainAddress(text, 'qemu:///system')).toEqual(address);
  });

  test.each(['', '?connect=qemu:///system'])('"%s" names no domain', (text) => {
    expect(() => parseDomainAddress(text, 'qemu:///system')).toThrow('names no domain');
  });
});

describe('the sockets of a libvirtd', () => {
  test('are the usual ones, or the one that is named', () => {
    expect(daemonSockets('qemu:///system')).toEqual([
      '/run/libvirt/virtqemud-sock',
      '/run/libvirt/libvirt-sock',
    ]);
    expect(daemonSockets('qemu+unix:///system?socket=/x/y')).toEqual(['/x/y']);
  });

  test.each(['qemu+ssh://host/system', 'qemu://host/system', 'test:///default', 'qemu:///session'])(
    '%s is not of this host',
    (uri) => {
      expect(() => daemonSockets(uri)).toThrow(`${uri} is not the libvirt of this host`);
    },
  );
});

test('an agent’s own path of the sockets is libvirt’s unless it is told another', () => {
  expect(libvirtOptions()).toEqual({
    uri: 'qemu:///system',
    socketDir: '/run/vmferry',
    socketDirHere: '/run/vmferry',
  });
  expect(libvirtOptions({ socketDir: '/x' }).socketDirHere).toBe('/x');
  expect(libvirtOptions({ socketDirHere: '/y' })).toMatchObject({
    socketDir: '/run/vmferry',
    socketDirHere: '/y',
  });
});

test('interfaces are read with the taps that they have', () => {
  const xml = `<domain type='kvm'><metadata><own xmlns='urn:own'><interface><mac address='52:54:00:aa:00:03'/></interface></own></metadata><devices>
    <interface type='bridge'><mac address='52:54:00:AA:00:01'/><source bridge='br0'/>
      <target dev='vnet3'/><model type='virtio'/><alias name='net0'/></interface>
    <interface type='user'><mac address='52:54:00:aa:00:02'/></interface>
    </devices></domain>`;
  expect(readInterfaces(xml)).toEqual([
    { mac: '52:54:00:aa:00:01', name: 'net0', addresses: [], hostInterface: 'vnet3' },
    { mac: '52:54:00:aa:00:02', name: '52:54:00:aa:00:02', addresses: [] },
  ]);
});

test('a domain’s name and UUID are its own, not those of what is in it', () => {
  const xml = `<domain type='kvm'><name>a&amp;b</name><uuid>11111111-2222-4000-8000-000000000001</uuid>
    <devices><disk><source><name>other</name></source></disk></devices></domain>`;
  expect(identityOf(xml)).toEqual({ name: 'a&b', uuid: '11111111-2222-4000-8000-000000000001' });
  expect(identityOf('<domain><devices><name>x</name></devices></domain>')).toEqual({ name: '', uuid: '' });
});
