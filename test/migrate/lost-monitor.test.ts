/** The connection to the source's monitor breaks, and its QEMU lives: its guest is not to be called gone. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MigrationEvent } from '@vmferry/engine/events';
import { expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { FIRST_ROUND, follow, phase, startAgents, when } from './agents.ts';
import { settingsOf, useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

/** Another way to a monitor. */
async function wayTo(monitor: string) {
  const sockets = new Set<Socket>();
  const path = join(tmpdir(), 'way');
  const server = createServer((near) => {
    const far = connect(monitor);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}));
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
  });
  server.listen(path);
  await once(server, 'listening');
  const breaks = (): void => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
  };
  const close = (): void => {
    server.close();
    breaks();
  };
  return later({ path, breaks, close }, async (way) => way.close());
}

async function underWay(strategy: 'precopy' | 'postcopy', moment: (event: MigrationEvent) => boolean) {
  const src = later(await startBootSector({}, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector({}, { name: 'dst' }), (q) => q.stop());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  const agents = later(await startAgents(), (a) => a.close());
  const settings = await settingsOf(src);
  const way = await wayTo(src.productQmp);
  const migration = agents.migrate({
    guest: `qemu:${way.path}`,
    destGuest: `qemu:${dst.productQmp}`,
    ...{ strategy, maxBandwidth: 20e6, compress: 'off' },
  });
  await when(migration, moment);
  return { src, dst, watcher, settings, way, migration };
}

const POSTCOPY = phase('postcopy');

test('among the rounds, the guest goes on at the source, by another connection', async () => {
  const { src, dst, watcher, settings, way, migration } = await underWay('precopy', FIRST_ROUND);
  way.breaks();
  const { report } = await follow(migration);
  expect(report).toMatchObject({
    outcome: 'failed',
    error: { code: 'E_GUEST_UNREACHABLE', side: 'source', guestRunsOn: 'source' },
  });
  expect(report.error?.message).toMatch(/was lost, and QEMU lives/);
  await nextPass(src);
  expect((await checkBootSector(src)).bad).toEqual([]);
  expect(await settingsOf(src)).toEqual(settings);
  await dst.process.exited;
  await watcher.finish();
});

test('among the rounds, where nothing leads to the monitor any more, an operator is called', async () => {
  const { src, way, migration } = await underWay('precopy', FIRST_ROUND);
  way.close();
  const report = await migration.done;
  expect(report).toMatchObject({
    outcome: 'attention',
    error: { code: 'E_GUEST_UNREACHABLE', guestRunsOn: 'unknown' },
  });
  expect(report.error?.remedy).not.toMatch(/[Ss]tart the guest again/);
  await nextPass(src);
});

test('in post-copy, the rest of the guest comes all the same', async () => {
  const { src, dst, watcher, way, migration } = await underWay('postcopy', POSTCOPY);
  way.close();
  const { report } = await follow(migration);
  expect(report.error).toBeNull();
  expect(report.outcome).toBe('completed');
  expect(report.notes).toContainEqual(expect.stringMatching(/After the commit: the monitor .* was lost/));
  expect(report.notes).toContainEqual(expect.stringMatching(/hypervisor could not be ended/));
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  expect(await src.runState()).toBe('postmigrate');
  await watcher.finish();
});
