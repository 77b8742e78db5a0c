/** A guest that somebody stops or lets run among the rounds arrives as it stood in the end. */
import { expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { FIRST_ROUND, follow, startAgents, when } from './agents.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

/** The boot-sector guest on its way, some of its first round sent, and slowly enough for whatever is to happen. */
async function underWay({ paused = false } = {}) {
  const src = later(await startBootSector({ extraArgs: ['-no-shutdown'] }, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector({}, { name: 'dst' }), (q) => q.stop());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  const agents = later(await startAgents(), (a) => a.close());
  if (paused) await src.qmp.execute('stop');
  const migration = agents.migrate({
    guest: `qemu:${src.productQmp}`,
    destGuest: `qemu:${dst.productQmp}`,
    ...{ strategy: 'precopy', maxBandwidth: 40e6, compress: 'off', maxDowntimeMs: 60_000 },
  });
  await when(migration, FIRST_ROUND);
  return { src, dst, watcher, migration };
}

test('a guest that an operator stops arrives paused, and stood for nobody’s downtime', async () => {
  const { src, dst, watcher, migration } = await underWay();
  await src.qmp.execute('stop');
  const { report } = await follow(migration);
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed', downtimeMs: 0 });
  expect(report.notes).toContainEqual(expect.stringMatching(/not by its migration .*"paused"/));
  expect(await dst.runState()).toBe('paused');
  expect(dst.qmp.events.map(({ event }) => event)).not.toContain('RESUME');
  await dst.qmp.execute('cont');
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  await watcher.finish();
});

test('a paused guest that an operator lets run arrives running', async () => {
  const { src, dst, watcher, migration } = await underWay({ paused: true });
  await src.qmp.execute('cont');
  const { report } = await follow(migration);
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome: 'completed' });
  expect(report.downtimeMs).toBeGreaterThan(0);
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  await watcher.finish();
});

test('a guest that shuts down ends its migration, and its QEMU keeps it', async () => {
  const { src, dst, migration } = await underWay();
  // The rig's QEMUs take a reset for a shutdown.
  await src.qmp.execute('system_reset');
  const { report } = await follow(migration);
  expect(report).toMatchObject({
    outcome: 'failed',
    error: {
      code: 'E_GUEST_GONE',
      guestRunsOn: 'neither',
      message: expect.stringMatching(/shut down.*moved/),
    },
  });
  expect(await src.runState()).toBe('shutdown');
  await dst.process.exited;
});
