import { expect, test } from 'vitest';
import { parseDescription } from '../src/description.ts';

const bare = {
  kind: 'qemu',
  name: 'web',
  hypervisorVersion: '7.2.0',
  machine: 'pc-i440fx-7.2',
  vcpus: 2,
  memoryBytes: 2 ** 29,
  blocks: [{ name: 'pc.ram', bytes: 2 ** 29, hostPageBytes: 4096 }],
  nics: [{ mac: '52:54:00:12:34:56', name: 'net0', addresses: ['10.0.0.2'] }],
  running: true,
  oneLiveRound: false,
};

test('a guest of which nobody knows more than its hypervisor is described', () => {
  expect(parseDescription(bare)).toEqual(bare);
});

test('what the drivers of a kind say to each other is carried as it is', () => {
  const libvirt = {
    uuid: 'aaaaaaaa-0000-4000-8000-00000000000a',
    socketDir: '/run/vmferry',
    rendezvous: 'ab'.repeat(12),
  };
  const told = { ...bare, kind: 'libvirt', libvirt, preflight: { shape: [1, 'x'] } };
  expect(parseDescription(told)).toEqual(told);
});

test('a name of a directory that is none is refused', () => {
  const libvirt = {
    uuid: 'aaaaaaaa-0000-4000-8000-00000000000a',
    socketDir: '/run/vmferry',
    rendezvous: '../../etc',
  };
  expect(() => parseDescription({ ...bare, kind: 'libvirt', libvirt })).toThrow(/24 hexadecimal/);
});
