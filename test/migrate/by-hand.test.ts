/** What the README tells an operator to do by hand, done: it must work. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { startAgents, when } from './agents.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

/** What the end of its agent is to a QEMU: its migration's socket closes. */
async function agentEnds({ qmp }: QemuProcess): Promise<void> {
  await qmp.execute('yank', { instances: [{ type: 'migration' }] });
  await expect.poll(async () => (await qmp.query('query-migrate'))['status']).toBe('postcopy-paused');
}

test('a post-copy that lost its link is finished between the two QEMUs', async () => {
  const src = later(await startBootSector({}, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector({}, { name: 'dst' }), (q) => q.stop());
  const agents = later(await startAgents(), (a) => a.close());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  const migration = agents.migrate({
    guest: `qemu:${src.productQmp}`,
    destGuest: `qemu:${dst.productQmp}`,
    to: agents.wire.url,
    ...{ strategy: 'postcopy', maxBandwidth: 4e6, compress: 'off' },
  });
  await when(migration, (event) => event.type === 'phase' && event.phase === 'postcopy');
  agents.wire.cut();
  const report = await migration.done;
  expect(report).toMatchObject({ outcome: 'attention', error: { guestRunsOn: 'dest' } });
  await agentEnds(src);
  await agentEnds(dst);

  const uri = `unix:${join(tmpdir(), 'recover')}`;
  await dst.qmp.execute('migrate-recover', { uri });
  await src.qmp.execute('migrate', { uri, resume: true });
  await expect
    .poll(async () => (await dst.qmp.query('query-migrate'))['status'], { timeout: 20_000 })
    .toBe('completed');
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  expect(await src.runState()).toBe('postmigrate');
  await watcher.finish();
});
