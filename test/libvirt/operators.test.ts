/** What an operator does to a domain by other tools, before it moves and meanwhile. */
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { expect, test } from 'vitest';
import { type Agents, when } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';
import { runsOnTheSource } from './support.ts';

const rig = useTwoLibvirts();

/** A pre-copy in the middle of its memory. */
async function midway(agents: Agents, guest: string): Promise<RunningMigration> {
  const migration = agents.migrate({ guest, strategy: 'precopy', maxBandwidth: 16e6 });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 8e6);
  return migration;
}

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

test('a job that is aborted leaves the guest where it was; one that is suspended arrives and runs on', async () => {
  const { libvirts } = rig;
  const domain = await libvirts.boot();
  const agents = await libvirts.agents();
  await libvirts.placeOn('b', domain.name);
  const aborted = await midway(agents, domain.uri);
  await (await domain.on('a')).abortJob();
  const report = await aborted.done;
  expect(report).toMatchObject({
    outcome: 'cancelled',
    error: { code: 'E_CANCELLED', message: expect.stringContaining('domjobabort'), guestRunsOn: 'source' },
  });
  await runsOnTheSource(domain);

  // As with libvirt's own migration, whose rounds end that way.
  const there = await domain.awaitOn('b');
  const suspended = await midway(agents, domain.uri);
  await (await domain.on('a')).suspend().catch((error: unknown) => {
    // It was stopped already, or has gone.
    if (!isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID', 'VIR_ERR_NO_DOMAIN')) throw error;
  });
  expect(await suspended.done).toMatchObject({ outcome: 'completed', error: null });
  await there.runs();
  await verifyHistory(domain.places);
}, 60_000);
