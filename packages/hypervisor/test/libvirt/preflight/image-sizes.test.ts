import { expect, test } from 'vitest';
import { openImageSizes, takenBytes } from '../../../src/libvirt/preflight/image-sizes.ts';

const MiB = 1024 * 1024;

test('QEMU tells what the images that it has open take, by their paths', async () => {
  const asked: unknown[] = [];
  const sizes = await openImageSizes({
    execute: async (command, args) => {
      asked.push([command, args]);
      return [
        {
          'node-name': 'libvirt-1-storage',
          drv: 'file',
          file: '/images/sparse.raw',
          image: { 'virtual-size': 256 * MiB, 'actual-size': 20 * MiB, filename: '/images/sparse.raw' },
        },
        { 'node-name': 'libvirt-2-storage', drv: 'nbd', file: 'nbd://host/x', image: { 'virtual-size': 1 } },
      ];
    },
  });
  expect([...sizes]).toEqual([['/images/sparse.raw', 20 * MiB]]);
  expect(asked).toEqual([['query-named-block-nodes', { flat: true }]]);
});

test('a QEMU that cannot be asked leaves it to libvirt', async () => {
  const sizes = await openImageSizes({ execute: () => Promise.reject(new Error('no such command')) });
  expect(sizes.size).toBe(0);
  const info = { capacityBytes: 256n, allocationBytes: 0n, physicalBytes: 200n };
  // Of a domain that runs libvirt's allocation is where was written last: nothing, perhaps.
  expect(takenBytes(info, undefined, true)).toBe(200);
  expect(takenBytes({ ...info, allocationBytes: 20n }, undefined, false)).toBe(20);
  expect(takenBytes(info, 30, true)).toBe(30);
  expect(takenBytes(undefined, undefined, true)).toBeUndefined();
});
