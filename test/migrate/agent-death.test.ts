/** A destination agent that is killed takes no guest along: one that is started in its place clears up. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { lookAtPrepared } from '@vmferry/hypervisor/qemu/mark';
import { expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { within } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { follow, startAgents, when } from './agents.ts';
import { diskBelongsTo, withSharedDisk } from './shared-disk.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

async function scene() {
  const { guest, disk } = await withSharedDisk();
  const options = { extraArgs: guest };
  const src = later(await startBootSector(options, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector(options, { name: 'dst' }), (q) => q.stop());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  const agents = later(await startAgents(), (a) => a.close());
  const child = spawn(
    process.execPath,
    [join(repoRoot(), 'test/dist/migrate/doomed-dest.js'), agents.stateDir],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  later(child, async (c) => c.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => String((await lines.next()).value);
  const to = await line();
  return {
    ...{ disk, src, dst, watcher, agents },
    migrate: (request: Partial<Parameters<typeof agents.migrate>[0]>) =>
      agents.migrate({
        guest: `qemu:${src.productQmp}`,
        destGuest: `qemu:${dst.productQmp}`,
        to,
        ...request,
      }),
    waitsForRecovery: () =>
      expect.poll(async () => (await dst.qmp.query('query-migrate'))['status']).toBe('postcopy-paused'),
    loaded: async () => expect(await line()).toBe('loaded'),
    kill: async () => {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
    session: async () => {
      const names = await readdir(join(agents.stateDir, 'journal'));
      return names.find((name) => name.endsWith('-dest.journal'))!.replace('-dest.journal', '');
    },
    restart: async () => {
      const log = createLogger({ level: 'fatal', role: 'dest' });
      await new DestAgent({ stateDir: agents.stateDir, insecure: false, log }).settle();
    },
  };
}

type Scene = Awaited<ReturnType<typeof scene>>;

async function guestIsBack({ src, dst, disk, watcher }: Scene): Promise<void> {
  await within(10_000, () => 'end of the destination QEMU', dst.process.exited);
  await nextPass(src);
  expect((await checkBootSector(src)).bad).toEqual([]);
  await diskBelongsTo(src, disk);
  const { spans } = await watcher.finish();
  expect(new Set(spans.map(({ qemu }) => qemu))).toEqual(new Set(['src']));
}

test('killed among the rounds, the destination’s QEMU ends with it', async () => {
  const stage = await scene();
  const migration = stage.migrate({ strategy: 'precopy', maxBandwidth: 4e6, compress: 'off' });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 1e6);
  await stage.kill();
  expect(await migration.done).toMatchObject({ outcome: 'failed', error: { guestRunsOn: 'source' } });
  await guestIsBack(stage);
});

test.each(['precopy', 'postcopy'] as const)(
  'killed with the guest loaded (%s), the next agent ends what never ran, and the source has its guest again',
  async (strategy) => {
    const stage = await scene();
    const migration = stage.migrate({ strategy, maxDowntimeMs: 60_000 });
    await stage.loaded();
    await stage.kill();
    const given = async (): Promise<void> =>
      expect(await migration.done).toMatchObject({ outcome: 'failed', error: { guestRunsOn: 'source' } });
    // In post-copy QEMU waits for an agent that takes it up again, and holds the disks until it is ended.
    if (strategy === 'precopy') await given();
    else await stage.waitsForRecovery();
    expect(stage.dst.process.status).toBeUndefined();
    // Had it been committed, it would be found like this.
    expect(await lookAtPrepared(stage.dst.productQmp, await stage.session())).toEqual({
      ...{ found: 'here', status: 'paused' },
      migration: strategy === 'precopy' ? 'completed' : 'postcopy-paused',
    });
    expect(await lookAtPrepared(stage.dst.productQmp, 'another')).toEqual({ found: 'gone' });
    await stage.restart();
    await given();
    await guestIsBack(stage);
  },
);

test('an agent that is started again never ends a guest that ran, whatever its journal lost', async () => {
  const stage = await scene();
  const { src, dst, agents } = stage;
  const { report } = await follow(stage.migrate({ strategy: 'postcopy', to: agents.url }));
  expect(report.error).toBeNull();
  const directory = join(agents.stateDir, 'journal');
  const name = (await readdir(directory)).find((file) => file.endsWith('-dest.journal'))!;
  const [started] = (await readFile(join(directory, name), 'utf8')).split('\n');
  await writeFile(join(directory, name), `${started}\n`);
  await stage.restart();
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  await src.process.exited;
  await stage.watcher.finish();
});
