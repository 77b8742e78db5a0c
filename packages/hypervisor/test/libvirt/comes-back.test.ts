import { expect, test } from 'vitest';
import { comesBack } from '../../src/libvirt/comes-back.ts';

test.each([
  ['QEMU 6.0.0', 'undone'],
  ['QEMU 7.2.22', 'undone'],
  ['QEMU 9.2.4', 'undone'],
  ['QEMU 10.0.3', 'never'],
  ['QEMU 10.1.0', 'never'],
  ['QEMU 10.2.0', 'by-itself'],
  ['QEMU 11.1.0', 'by-itself'],
  ['something else', 'by-itself'],
])('the guest of a %s that was in post-copy is back: %s', (version, how) => {
  expect(comesBack(version)).toBe(how);
});
