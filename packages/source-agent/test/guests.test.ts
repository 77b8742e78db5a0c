import { SimulationHost } from '@vmferry/memsim/guest/host';
import { expect, test } from 'vitest';
import { lookAtGuest, sourceGuests, takeBackGuest } from '../src/guests.ts';

const host = { guests: { web1: { qmp: '/nowhere/web1.sock' } } };

test('a guest of the configuration is found by its name, at its own monitor', async () => {
  const guests = sourceGuests(new SimulationHost([]), host);
  await expect(guests('qemu:web1')).rejects.toMatchObject({
    code: 'E_GUEST_UNREACHABLE',
    message: expect.stringContaining('/nowhere/web1.sock'),
  });
  await expect(guests('qemu:/nowhere/else.sock')).rejects.toMatchObject({
    message: expect.stringContaining('/nowhere/else.sock'),
  });
  // Nobody listens there: its QEMU is gone.
  expect(await takeBackGuest('qemu:web1', 's', host)).toMatchObject({ found: 'gone' });
  expect(await lookAtGuest('qemu:web1', 's', host)).toMatchObject({ found: 'gone' });
});
