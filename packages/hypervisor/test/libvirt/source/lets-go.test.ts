/** A source's QEMU of 10.2 or newer in libvirt's post-copy: when is it sure not to run the guest again by itself? */
import type { Domain } from '@vmferry/native/libvirt/domain';
import { expect, test } from 'vitest';
import type { DomainEvents, DomainHappening } from '../../../src/libvirt/domain-events.ts';
import { letsGo } from '../../../src/libvirt/source/lets-go.ts';

/** A domain whose QEMU has a status, and tells of each that it comes to. */
function domainWith(first: string) {
  let status = first;
  const listeners: ((happening: DomainHappening) => void)[] = [];
  const taking = { now: false };
  const domain = { monitorCommand: () => Promise.resolve({ status }) };
  const events: Pick<DomainEvents, 'next'> = {
    next: (look) =>
      new Promise((resolve) => {
        listeners.push((happening) => {
          const found = look(happening);
          if (found !== undefined) resolve(found);
        });
      }),
  };
  const stream = {
    keepTaking: () => {
      taking.now = true;
      return () => {
        taking.now = false;
      };
    },
  };
  return {
    taking,
    letGo: letsGo(domain as unknown as Domain, events, stream),
    becomes: (next: string) => {
      status = next;
      for (const tell of listeners)
        tell({ type: 'monitor', event: 'MIGRATION', atMs: 0, data: { status: next } });
    },
  };
}

test('what it writes is taken until it has noticed that the guest is loaded', async () => {
  const { letGo, becomes, taking } = domainWith('postcopy-device');
  let sure = false;
  void letGo.then(() => {
    sure = true;
  });
  becomes('postcopy-device');
  await new Promise((resolve) => setImmediate(resolve));
  expect({ sure, taking: taking.now }).toEqual({ sure: false, taking: true });
  becomes('postcopy-active');
  await letGo;
  expect(taking.now).toBe(false);
});

test('one that has noticed before, or is done, is sure', async () => {
  await domainWith('postcopy-active').letGo;
  await domainWith('completed').letGo;
});

test('one whose migration fails first may run the guest', async () => {
  const { letGo, becomes } = domainWith('postcopy-device');
  becomes('failing');
  await expect(letGo).rejects.toMatchObject({
    code: 'E_GUEST_FAILED',
    message: expect.stringContaining('failing'),
  });
});
