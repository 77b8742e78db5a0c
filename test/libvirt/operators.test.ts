/** What an operator does to a domain by other tools, before it moves and meanwhile. */
import { expect, test } from 'vitest';
import { verifyHistory } from '../rig/guest.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';

const rig = useTwoLibvirts();

test('a domain that is paused goes by pre-copy, and arrives so', async () => {
  const { libvirts } = rig;
  const domain = await libvirts.boot();
  await (await domain.on('a')).suspend();
  const agents = await libvirts.agents();
  const asked = { guest: domain.uri, strategy: 'postcopy' } as const;
  expect(await agents.migrate(asked).done).toMatchObject({
    outcome: 'refused',
    error: { code: 'E_GUEST_BLOCKED', message: expect.stringContaining('is paused') },
  });
  const there = await domain.awaitOn('b');
  const report = await agents.migrate({ guest: domain.uri }).done;
  expect(report).toMatchObject({ outcome: 'completed', strategy: 'precopy', error: null });
  expect(await domain.states()).toBe('a: gone, b: paused (user)');
  await (await domain.on('b')).resume();
  await there.runs();
  await verifyHistory(domain.places);
}, 60_000);
