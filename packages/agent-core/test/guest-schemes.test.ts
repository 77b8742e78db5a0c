import { expect, test } from 'vitest';
import { openGuest } from '../src/guest-schemes.ts';

const schemes = { qemu: (name: string) => Promise.resolve(name), sim: () => Promise.resolve('simulated') };

test('a guest is opened by what stands behind the first colon', async () => {
  expect(await openGuest('qemu:/run/a:b.sock', schemes)).toBe('/run/a:b.sock');
});

test.each(['xen:none', 'toString:x', 'web', ':x'])(
  '%s is refused with the kinds that there are',
  async (uri) => {
    await expect(openGuest(uri, schemes)).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      remedy: expect.stringContaining('qemu:, sim:'),
    });
  },
);
