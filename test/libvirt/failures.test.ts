/** What fails on the way: the domain runs on exactly one host, or is paused and can be finished. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { follow, when } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';

const rig = useTwoLibvirts();
/** Slow enough to be in the middle of it. */
const SLOW = 8e6;
const HALTED = 'a: paused (post-copy-failed), b: running (post-copy-failed)';

/** As if nothing had been tried. */
async function runsOnTheSource(domain: MovingDomain): Promise<void> {
  expect(await domain.states()).toMatch(/^a: running \(.*\), b: gone$/);
  await domain.places[0]!.nextTick();
  expect(domain.watcher.handovers()).toEqual([]);
}

test('a wire that is cut in pre-copy leaves the domain on the source, and it moves afterwards', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot(), await libvirts.agents()];
  await domain.awaitOn('b');
  const migration = agents.migrate({
    guest: domain.uri,
    to: agents.wire.url,
    strategy: 'precopy',
    maxBandwidth: SLOW,
  });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 20e6);
  agents.wire.cut();
  const report = await migration.done;
  expect(report).toMatchObject({ outcome: 'failed', error: { code: 'E_LINK_LOST', guestRunsOn: 'source' } });
  await runsOnTheSource(domain);
  const there = await domain.awaitOn('b');
  const { report: second } = await follow(agents.migrate({ guest: domain.uri, strategy: 'precopy' }));
  expect(second.error).toBeNull();
  await there.arrived();
  await verifyHistory(domain.places);
});

test('a cancelled migration leaves the domain on the source', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot(), await libvirts.agents()];
  await domain.awaitOn('b');
  const migration = agents.migrate({ guest: domain.uri, maxBandwidth: SLOW });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 20e6);
  migration.cancel();
  expect((await migration.done).outcome).toBe('cancelled');
  await runsOnTheSource(domain);
  await verifyHistory(domain.places);
});

test('a post-copy whose wire is cut is paused, and finished by resuming it', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot(), await libvirts.agents()];
  const there = await domain.awaitOn('b');
  const migration = agents.migrate({
    guest: domain.uri,
    to: agents.wire.url,
    strategy: 'postcopy',
    maxBandwidth: SLOW,
  });
  await when(migration, (event) => event.type === 'progress' && event.phase === 'postcopy');
  agents.wire.cut();
  const report = await migration.done;
  expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_LINK_LOST', guestRunsOn: 'dest' } });
  await expect.poll(() => domain.states(), { timeout: 10_000 }).toBe(HALTED);
  const { report: resumed } = await follow(agents.migrate({ guest: domain.uri, resume: true }));
  expect(resumed.error).toBeNull();
  expect(resumed.outcome).toBe('completed');
  expect(await domain.states()).toMatch(/^a: gone, b: running/);
  await there.arrived();
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(1);
  // There is nothing left to finish.
  const { report: again } = await follow(agents.migrate({ guest: domain.uri, resume: true }));
  expect(again).toMatchObject({ outcome: 'refused', error: { code: 'E_GUEST_UNREACHABLE' } });
});

test('a post-copy that the destination takes nothing of is paused, though nothing broke', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot(), await libvirts.agents('a', { stalledMs: 1500 })];
  const there = await domain.awaitOn('b');
  const migration = agents.migrate({ guest: domain.uri, strategy: 'postcopy', maxBandwidth: SLOW });
  await when(migration, (event) => event.type === 'progress' && event.phase === 'postcopy');
  const qemu = Number(await readFile(join(libvirts.hosts.b.dir, 'run/qemu', `${domain.name}.pid`), 'utf8'));
  process.kill(qemu, 'SIGSTOP');
  try {
    const report = await migration.done;
    expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_STALLED', guestRunsOn: 'dest' } });
  } finally {
    process.kill(qemu, 'SIGCONT');
  }
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe(HALTED);
  const { report: resumed } = await follow(agents.migrate({ guest: domain.uri, resume: true }));
  expect(resumed.error).toBeNull();
  await there.arrived();
  await verifyHistory(domain.places);
});
