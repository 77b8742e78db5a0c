/** An agent that is killed takes no guest along, and leaves none running twice. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { expect, test } from 'vitest';
import { follow, when } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import type { ManagedProcess } from '../rig/process.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import { command, runsOnTheSource, says, settledByDest, settledBySource } from './support.ts';

const rig = useTwoLibvirts();
const HALTED = 'a: paused (post-copy-failed), b: running (post-copy-failed)';
const SLOW = 8e6;

async function finishes(domain: MovingDomain): Promise<void> {
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe(HALTED);
  const fresh = await rig.libvirts.agents();
  const { report } = await follow(fresh.migrate({ guest: domain.uri, resume: true }));
  expect(report.error).toBeNull();
  expect(await domain.states()).toMatch(/^a: gone, b: running/);
  expect(domain.watcher.handovers()).toHaveLength(1);
}

const inPrecopy = /"phase":"precopy","round":1.*"rawBytes":[1-9]\d{6}/;

async function killSource(
  domain: MovingDomain,
  strategy: string,
  inside: (source: ManagedProcess) => Promise<unknown>,
): Promise<void> {
  const agents = await rig.libvirts.agents();
  const source = await command(rig, 'a', [
    ...['migrate', domain.uri, '--to', agents.url, '--strategy', strategy, '--max-bandwidth', '8MB/s'],
    ...['--events', '-'],
  ]);
  await inside(source);
  source.kill('SIGKILL');
  await source.exited;
}

async function killDest(
  domain: MovingDomain,
  strategy: 'precopy' | 'postcopy',
  inside: (migration: RunningMigration) => Promise<unknown>,
  copyStorage: 'none' | 'all' = 'none',
): Promise<MigrationReport> {
  const dest = await command(rig, 'b', ['agent', 'dest', '--no-rehearsal', '--listen', 'ws://127.0.0.1:0']);
  const [, to = ''] = await says(dest, /(ws:\/\/127\.0\.0\.1:\d+)/);
  const agents = await rig.libvirts.agents();
  const migration = agents.migrate({ guest: domain.uri, to, strategy, copyStorage, maxBandwidth: SLOW });
  await inside(migration);
  dest.kill('SIGKILL');
  return await migration.done;
}

const imagesOf = (host: 'a' | 'b') => join(rig.libvirts.hosts[host].dir, 'lib', 'images');

/** One that the hosts do not share. */
async function attachDisk(domain: MovingDomain): Promise<void> {
  for (const host of ['a', 'b'] as const) await mkdir(imagesOf(host), { recursive: true });
  await writeFile(join(imagesOf('a'), 'late.raw'), Buffer.alloc(1 << 20));
  await (await domain.on('a')).attachDevice(
    `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source file='/var/lib/libvirt/images/late.raw'/><target dev='vdz' bus='virtio'/></disk>`,
  );
}

test('an agent that is killed in pre-copy, of either side, leaves the domain on the source; its QEMU’s end is told as that', async () => {
  const domain = await rig.libvirts.boot();
  await domain.awaitOn('b');
  await killSource(domain, 'precopy', (source) => says(source, inPrecopy));
  await runsOnTheSource(domain);
  expect(await settledBySource(rig.libvirts.hosts.a)).toEqual(['rolled-back']);
  await runsOnTheSource(domain);
  await domain.awaitOn('b');
  await attachDisk(domain);
  const report = await killDest(
    domain,
    'precopy',
    (migration) => when(migration, (event) => event.type === 'progress' && event.rawBytes > 8e6),
    'all',
  );
  expect(report).toMatchObject({ outcome: 'failed', error: { guestRunsOn: 'source' } });
  await runsOnTheSource(domain);
  expect(await readdir(imagesOf('b'))).toEqual(['late.raw']);
  await settledByDest(rig.libvirts.hosts.b);
  expect(await readdir(imagesOf('b'))).toEqual([]);
  await verifyHistory(domain.places);

  await domain.awaitOn('b');
  const agents = await rig.libvirts.agents();
  const migration = agents.migrate({
    guest: domain.uri,
    strategy: 'precopy',
    maxBandwidth: SLOW,
    copyStorage: 'all',
  });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 8e6);
  await rig.libvirts.hosts.a.killDomain(domain.name);
  const ended = await migration.done;
  expect(ended).toMatchObject({ outcome: 'failed', error: { code: 'E_GUEST_GONE', guestRunsOn: 'neither' } });
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe('a: gone, b: gone');
}, 90_000);

test.each(['source', 'destination'] as const)(
  'a post-copy whose %s agent is killed is finished by others',
  async (side) => {
    const domain = await rig.libvirts.boot();
    const there = await domain.awaitOn('b');
    if (side === 'source') await killSource(domain, 'postcopy', () => there.runs());
    else {
      const report = await killDest(domain, 'postcopy', () => there.runs());
      expect(report).toMatchObject({ outcome: 'attention', error: { guestRunsOn: 'dest' } });
      expect(report.error?.remedy).toContain('vmferry resume');
    }
    await finishes(domain);
    await verifyHistory(domain.places);
  },
  120_000,
);
