import { NewVolumes } from '@vmferry/hypervisor/libvirt/images/volumes';
import { errorCodes, errorDomains } from '@vmferry/native/libvirt/error-names';
import { libvirtFailure } from '@vmferry/native/libvirt/errors';
import type { StorageVolume } from '@vmferry/native/libvirt/host';
import { expect, test } from 'vitest';

const unknown = libvirtFailure({
  ...{ code: 0, message: 'no such volume', call: 'virStorageVolLookupByName', level: 2, details: [] },
  ...{ number: errorCodes.VIR_ERR_NO_STORAGE_VOL, domain: errorDomains.VIR_FROM_STORAGE },
});

test('of the volumes that were to come only those are removed that have come since', async () => {
  const born: Record<string, number | undefined> = {
    '/p/new': Date.now() + 1000,
    '/p/old': 1,
    '/p/lv': undefined,
  };
  const removed: string[] = [];
  const host = {
    volume: async (_: string, name: string): Promise<StorageVolume> => {
      if (name === 'never') throw unknown;
      return { type: 'file', path: `/p/${name}`, capacityBytes: 1n, allocationBytes: 1n };
    },
    removeVolume: async (pool: string, name: string) => {
      removed.push(`${pool}/${name}`);
    },
  };
  const names = ['new', 'old', 'lv', 'never'].map((volume) => ({ pool: 'p', volume }));
  await new NewVolumes(names, async (path) => born[path]).remove(host);
  expect(removed).toEqual(['p/new']);
});
