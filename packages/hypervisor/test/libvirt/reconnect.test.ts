import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { expect, test } from 'vitest';
import { reconnect } from '../../src/libvirt/reconnect.ts';

const refused = new Error('nobody listens');

test('a libvirtd is asked until it is back', async () => {
  const connection = {} as LibvirtConnection;
  const asked: string[] = [];
  const open = (uri: string): Promise<LibvirtConnection> => {
    asked.push(uri);
    return asked.length < 3 ? Promise.reject(refused) : Promise.resolve(connection);
  };
  expect(await reconnect('qemu:///system', open)).toBe(connection);
  expect(asked).toEqual(['qemu:///system', 'qemu:///system', 'qemu:///system']);
});

test('one that stays away is given up, with why', async () => {
  await expect(reconnect('qemu:///system', () => Promise.reject(refused), 1)).rejects.toBe(refused);
});
