/** Whatever fails before the commit, the guest runs on at the source and is whole; nothing is left behind. */
import { readdir, readlink } from 'node:fs/promises';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { GuestError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { afterEach, describe, expect, test } from 'vitest';
import { follow, when } from '../migrate/agents.ts';
import { definition, overriding, type Site, type Spoil, startSite, writesOn } from './support.ts';

const sites: Site[] = [];
afterEach(async () => {
  for (const site of sites.splice(0)) await site.close();
});

const guest = definition({ content: { random: 1 }, workload: { kind: 'uniform', pagesPerSec: 2000 } });
/** The guest's 24 MiB take six seconds: slow enough for whatever is to happen meanwhile. */
const SLOW = { maxBandwidth: 4_000_000, compress: 'off' } as const;
const strategies = ['precopy', 'postcopy'] as const;

async function start(spoil: Spoil = {}): Promise<Site> {
  const site = await startSite(guest, spoil);
  sites.push(site);
  return site;
}

const copying = (event: MigrationEvent): boolean => event.type === 'progress' && event.rawBytes > 1e6;

async function underWay(migration: RunningMigration): Promise<void> {
  await when(migration, copying);
}

/** It never stopped running there, or does again; it is whole, and can be moved by the next migration. */
async function goesOnAtSource(site: Site, report: MigrationReport): Promise<void> {
  expect(report.error).toMatchObject({ guestRunsOn: 'source', remedy: expect.stringMatching(/\S/) });
  expect(site.source.running).toBe(true);
  await writesOn(site.source, 200);
  expect((await site.source.verify()).sound).toBe(true);
  await expect.poll(() => site.there.machine('g')).toBeUndefined();
}

async function arrivesNextTime(site: Site): Promise<void> {
  const { report } = await follow(site.migrate());
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed' });
  expect(site.dest.running).toBe(true);
}

async function openFilesBelow(directory: string): Promise<string[]> {
  const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
  return (await Promise.all(links)).filter((path) => path.startsWith(directory));
}

test('a migration that is cancelled among its rounds leaves the guest as it was', async () => {
  const site = await start();
  const migration = site.migrate({ strategy: 'precopy', ...SLOW });
  await underWay(migration);
  migration.cancel();
  const { report } = await follow(migration);
  expect(report).toMatchObject({ outcome: 'cancelled', error: { code: 'E_CANCELLED' } });
  await goesOnAtSource(site, report);
  await arrivesNextTime(site);
});

test('a link that is cut among the rounds leaves the guest as it was', async () => {
  const site = await start();
  const migration = site.migrate({ strategy: 'precopy', ...SLOW, to: site.agents.wire.url });
  await underWay(migration);
  site.agents.wire.cut();
  const { report } = await follow(migration);
  expect(report).toMatchObject({ outcome: 'failed', error: { code: 'E_LINK_LOST' } });
  await goesOnAtSource(site, report);
  await arrivesNextTime(site);
});

test('a destination agent that is told to end among the rounds leaves the guest as it was', async () => {
  const site = await start();
  const migration = site.migrate({ strategy: 'precopy', ...SLOW });
  await underWay(migration);
  await site.agents.closeDest();
  const { report } = await follow(migration);
  expect(report).toMatchObject({
    outcome: 'failed',
    error: { code: 'E_LINK_LOST', side: 'dest', message: 'The destination agent was told to end.' },
  });
  await goesOnAtSource(site, report);
});

test.each(strategies)('a destination that dies while it is filled by %s', async (strategy) => {
  let reached: () => void = () => {};
  const sealed = new Promise<void>((resolve) => {
    reached = resolve;
  });
  const site = await start({
    // It never gets ready, so that nothing is committed.
    dest: (dest) =>
      overriding(dest, {
        ready: () => {
          reached();
          return dest.gone.then((error) => Promise.reject(error));
        },
      }),
  });
  const migration = site.migrate({ strategy, compress: 'off', maxDowntimeMs: 60_000 });
  await sealed;
  await site.dest.end('it was killed');
  const { report } = await follow(migration);
  expect(report).toMatchObject({ outcome: 'failed', error: { code: 'E_GUEST_GONE', side: 'dest' } });
  expect(report.error?.message).toMatch(/the simulated guest g is gone: it was killed/);
  await goesOnAtSource(site, report);
});

test.each(strategies)(
  'a destination that cannot load the state in %s gives the guest back',
  async (strategy) => {
    let broken = true;
    const site = await start({
      dest: (dest) =>
        overriding(dest, {
          ready: async () => {
            await dest.ready();
            if (broken) throw new GuestError('E_GUEST_FAILED', 'a device does not fit', 'start it alike');
          },
        }),
    });
    await writesOn(site.source, 100);
    const { report } = await follow(site.migrate({ strategy }));
    expect(report).toMatchObject({
      outcome: 'failed',
      error: { code: 'E_GUEST_FAILED', side: 'dest', message: 'a device does not fit' },
    });
    await goesOnAtSource(site, report);
    broken = false;
    await arrivesNextTime(site);
  },
);

test.each(['precopy', 'hybrid', 'auto'] as const)(
  'a destination that takes nothing does not keep a migration beyond its deadline (%s)',
  async (strategy) => {
    const site = await start({
      dest: (dest) =>
        overriding(dest, {
          apply: (item) => {
            if (item.type !== 'pages') return dest.apply(item);
            item.release();
            return new Promise(() => {});
          },
        }),
    });
    const { report } = await follow(site.migrate({ strategy, ...SLOW, deadlineMs: 1200 }));
    expect(report).toMatchObject({ outcome: 'failed', error: { code: 'E_DEADLINE' } });
    expect(report.error?.message).toMatch(/deadline.*taken nothing/);
    await goesOnAtSource(site, report);
  },
);
test('a destination that cannot end what it had says so, and the guest goes on at the source', async () => {
  const site = await start({
    dest: (dest) =>
      overriding(dest, {
        ready: () =>
          Promise.reject(new GuestError('E_GUEST_FAILED', 'a device does not fit.', 'start it alike')),
        discard: () => Promise.reject(new GuestError('E_GUEST_FAILED', 'nobody answers', 'end it by hand')),
      }),
  });
  const { report } = await follow(site.migrate({ strategy: 'precopy' }));
  const message = 'a device does not fit. The guest could not be ended on the destination: nobody answers.';
  expect(report).toMatchObject({
    outcome: 'failed',
    error: { code: 'E_GUEST_FAILED', side: 'dest', message, guestRunsOn: 'source' },
  });
  expect(site.source.running).toBe(true);
  await writesOn(site.source, 200);
});

test('a source that dies takes its guest with it, and says that it runs nowhere', async () => {
  const site = await start();
  const migration = site.migrate({ strategy: 'precopy', ...SLOW });
  await underWay(migration);
  await site.source.end('it was killed');
  const { report } = await follow(migration);
  expect(report).toMatchObject({
    outcome: 'failed',
    error: { code: 'E_GUEST_GONE', side: 'source', guestRunsOn: 'neither' },
  });
  await expect.poll(() => site.there.machine('g')).toBeUndefined();
});

test('a guest that cannot run again at once is tried again after the operator was called', async () => {
  let disksFree = false;
  const site = await start({
    source: (source) =>
      overriding(source, {
        rollback: async () => {
          if (!disksFree) throw new GuestError('E_GUEST_FAILED', 'the disk is locked', 'end who holds it');
          await source.rollback();
        },
      }),
    dest: (dest) =>
      overriding(dest, {
        ready: () =>
          Promise.reject(new GuestError('E_GUEST_FAILED', 'a device does not fit', 'start it alike')),
      }),
  });
  const { report } = await follow(site.migrate({ strategy: 'postcopy' }));
  expect(report).toMatchObject({ outcome: 'attention', error: { guestRunsOn: 'unknown' } });
  expect(report.error?.message).toMatch(/could not be resumed on the source: the disk is locked/);
  expect(site.source.running).toBe(false);
  disksFree = true;
  await expect.poll(() => site.source.running, { timeout: 8000 }).toBe(true);
});

test('a throttled guest that is not moved after all runs at its own speed again', async () => {
  const site = await start();
  const migration = site.migrate({ strategy: 'precopy', ...SLOW });
  await underWay(migration);
  site.source.throttle(99);
  migration.cancel();
  await follow(migration);
  const since = performance.now();
  await writesOn(site.source, 600);
  // At a hundredth of its speed this would take half a minute.
  expect(performance.now() - since).toBeLessThan(8_000);
});

describe('after the commit of a post-copy', () => {
  test('a guest that runs only after its time limit is finished all the same', async () => {
    let late = true;
    const site = await start({
      limits: { readyMs: 30_000, runningMs: 200 },
      dest: (dest) =>
        overriding(dest, {
          run: async (how) => {
            if (late) await new Promise((resolve) => setTimeout(resolve, 600));
            late = false;
            return await dest.run(how);
          },
        }),
    });
    const { report } = await follow(
      site.migrate({ strategy: 'postcopy', ...SLOW, maxBandwidth: 12_000_000 }),
    );
    expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed' });
    expect(report.notes).toContainEqual(expect.stringMatching(/within 200 ms.*goes on sending/));
    await writesOn(site.dest, 200);
    expect((await site.dest.verify()).sound).toBe(true);
  });

  test('a guest that cannot be run is whole on the destination before the operator is called', async () => {
    let complete = false;
    const site = await start({
      dest: (dest) =>
        overriding(dest, {
          run: () => Promise.reject(new GuestError('E_GUEST_FAILED', 'the disk is locked', 'unlock it')),
          complete: async () => {
            await dest.complete();
            complete = true;
          },
        }),
    });
    const migration = site.migrate({ strategy: 'postcopy', ...SLOW, maxBandwidth: 12_000_000 });
    await when(migration, (event) => event.type === 'note' && event.text.includes('goes on sending'));
    const machine = site.dest;
    const { report } = await follow(migration);
    expect(report).toMatchObject({
      outcome: 'attention',
      error: { side: 'dest', code: 'E_GUEST_FAILED', guestRunsOn: 'neither', message: 'the disk is locked' },
    });
    expect(report.error?.remedy).toMatch(/unlock it/);
    expect(complete).toBe(true);
    expect(machine.running).toBe(false);
    expect((await machine.verify()).sound).toBe(true);
    expect(site.source.running).toBe(false);
  });

  test('a destination agent that is told to end brings the rest before it does', async () => {
    const site = await start();
    const migration = site.migrate({ strategy: 'postcopy', ...SLOW, maxBandwidth: 12_000_000 });
    const ended = follow(migration);
    await when(migration, (event) => event.type === 'phase' && event.phase === 'postcopy');
    await site.agents.closeDest();
    const { report } = await ended;
    expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed' });
    await writesOn(site.dest, 200);
    expect((await site.dest.verify()).sound).toBe(true);
  });

  test('a destination agent that is to end at once does', async () => {
    const site = await start();
    const migration = site.migrate({ strategy: 'postcopy', ...SLOW });
    await when(migration, (event) => event.type === 'phase' && event.phase === 'postcopy');
    const closing = site.agents.closeDest();
    site.agents.dest.abandon();
    await closing;
    const { report } = await follow(migration);
    expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_LINK_LOST' } });
  });

  test('a lost link leaves a guest that only an operator can finish, and the source never runs again', async () => {
    const site = await start();
    const migration = site.migrate({ strategy: 'postcopy', ...SLOW, to: site.agents.wire.url });
    await when(migration, (event) => event.type === 'phase' && event.phase === 'postcopy');
    site.agents.wire.cut();
    const { report } = await follow(migration);
    expect(report).toMatchObject({ outcome: 'attention' });
    expect(report.error?.guestRunsOn).not.toBe('source');
    expect(site.source.running).toBe(false);
    // Its vCPUs stand at pages that do not come.
    await expect.poll(() => site.dest.running).toBe(true);
    // Neither side's journal is held open for whatever may come yet.
    await expect.poll(() => openFilesBelow(site.agents.stateDir)).toEqual([]);
  });

  test('a destination that takes nothing calls an operator, and may finish all the same', async () => {
    let stands = true;
    let goOn: () => void = () => {};
    const going = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const site = await start({
      stalledMs: 1000,
      dest: (dest) => {
        let runs = false;
        return overriding(dest, {
          run: async (how) => {
            runs = true;
            return await dest.run(how);
          },
          apply: async (item) => {
            if (runs && stands) await going;
            await dest.apply(item);
          },
        });
      },
    });
    const { report } = await follow(
      site.migrate({ strategy: 'postcopy', ...SLOW, maxBandwidth: 12_000_000 }),
    );
    expect(report).toMatchObject({
      outcome: 'attention',
      error: { code: 'E_STALLED', guestRunsOn: 'dest', message: expect.stringMatching(/taken nothing/) },
    });
    const source = site.source;
    stands = false;
    goOn();
    // The source keeps its guest until the destination has all of it.
    await expect.poll(() => site.here.machine('g')).not.toBe(source);
    expect((await site.dest.verify()).sound).toBe(true);
  });
});
