/** A source agent that is killed takes no guest along: one that is started in its place settles what it can. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createLogger } from '@vmferry/agent-core/log';
import { parseJournal } from '@vmferry/engine/journal/records';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { ManagedProcess, within } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import { givesPostcopyUp, qemuOf } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { follow, startAgents, when } from './agents.ts';
import { Gate } from './faulty-guest.ts';
import { diskBelongsTo, withSharedDisk } from './shared-disk.ts';
import { settingsOf, useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();
const MAIN = join(repoRoot(), 'packages/migrate-cli/dist/main.js');

interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly guestRunsOn?: string;
  readonly remedy?: string;
  readonly code?: string;
}

async function scene(gate?: Gate) {
  const { guest, disk } = await withSharedDisk();
  const options = { extraArgs: guest };
  const src = later(await startBootSector(options, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector(options, { name: 'dst' }), (q) => q.stop());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  const agents = later(await startAgents({}, gate ? { destParts: { guests: gate.guests } } : {}), (a) =>
    a.close(),
  );
  const { stateDir } = agents;
  const settings = await settingsOf(src);
  const log: LogLine[] = [];
  return {
    ...{ disk, src, dst, watcher, agents, settings, log },
    /** A source agent of its own, inside of the command. */
    leave: (...args: readonly string[]) => {
      const guests = ['migrate', `qemu:${src.productQmp}`, '--dest-guest', `qemu:${dst.productQmp}`];
      const command = [process.execPath, MAIN, ...guests, '--to', agents.url, '--state-dir', stateDir];
      const child = new ManagedProcess([...command, '--events', '-', ...args]);
      return later(child, (c) => c.stop());
    },
    restart: async () => {
      const destination = { write: (line: string) => void log.push(JSON.parse(line) as LogLine) };
      const logger = createLogger({ level: 'info', role: 'source', destination });
      await new SourceAgent({ stateDir, insecure: false, log: logger }).settle();
    },
    lastRecord: async () => {
      const dir = join(stateDir, 'journal');
      const name = (await readdir(dir)).find((file) => file.endsWith('-source.journal'))!;
      return parseJournal(await readFile(join(dir, name), 'utf8')).records.at(-1)?.state;
    },
  };
}

type Scene = Awaited<ReturnType<typeof scene>>;

async function says(child: ManagedProcess, matches: RegExp): Promise<void> {
  let said = '';
  const found = new Promise<void>((resolve) => {
    for (const output of [child.child.stdout, child.child.stderr]) {
      output.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        if (matches.test(said)) resolve();
      });
    }
  });
  await within(30_000, () => `${String(matches)} of ${said}`, found);
}

async function kill(child: ManagedProcess): Promise<void> {
  child.kill('SIGKILL');
  await child.exited;
}

async function isHalted({ src }: Scene): Promise<void> {
  await expect.poll(async () => (await src.qmp.query('query-migrate'))['status']).toBe('postcopy-paused');
}

/** As if there had been no migration; and the agent after that has nothing to do. */
async function guestIsBack(stage: Scene): Promise<void> {
  const { src, dst, disk, watcher, settings, log } = stage;
  await within(10_000, () => 'end of the destination QEMU', dst.process.exited);
  await nextPass(src);
  expect((await checkBootSector(src)).bad).toEqual([]);
  await diskBelongsTo(src, disk);
  expect(await settingsOf(src)).toEqual(settings);
  expect(await src.qmp.execute('qom-list', { path: '/objects' })).not.toContainEqual(
    expect.objectContaining({ name: expect.stringMatching(/^vmferry/) }),
  );
  const { spans } = await watcher.finish();
  expect(new Set(spans.map(({ qemu }) => qemu))).toEqual(new Set(['src']));
  expect(await stage.lastRecord()).toBe('rolled-back');
  expect(log.map(({ level, guestRunsOn }) => [level, guestRunsOn])).toEqual([['info', 'source']]);
  await stage.restart();
  expect(log).toHaveLength(1);
}

test('killed among the rounds, the guest goes on at the source, and the next agent clears up', async () => {
  const stage = await scene();
  const child = stage.leave('--strategy', 'precopy', '--max-bandwidth', '4MB/s', '--compress', 'off');
  await says(child, /"phase":"precopy".*"rawBytes":[1-9]\d{6}/);
  await kill(child);
  await nextPass(stage.src);
  await stage.restart();
  await guestIsBack(stage);
});

test.each(['precopy', 'postcopy'] as const)(
  'killed with the guest stopped and nothing promised (%s), the next agent lets it run again',
  async (strategy) => {
    const gate = new Gate('ready');
    const stage = await scene(gate);
    const slow = ['--max-bandwidth', '4MB/s', '--compress', 'off'];
    const child = stage.leave('--strategy', strategy, ...(strategy === 'precopy' ? [] : slow));
    await gate.reached;
    await kill(child);
    gate.open();
    const byItself = strategy === 'postcopy' && (await givesPostcopyUp(qemuOf('a')));
    if (!byItself) expect(await stage.src.runState()).not.toBe('running');
    await within(20_000, () => 'end of the destination QEMU', stage.dst.process.exited);
    if (strategy === 'postcopy' && !byItself) await isHalted(stage);
    await stage.restart();
    await guestIsBack(stage);
  },
);

test('a guest that was paused is not run by the next agent', async () => {
  const gate = new Gate('ready');
  const stage = await scene(gate);
  await stage.src.qmp.execute('stop');
  const from = stage.src.qmp.events.length;
  const child = stage.leave('--strategy', 'precopy');
  await gate.reached;
  await kill(child);
  gate.open();
  await stage.restart();
  expect(await stage.src.runState()).toBe('postmigrate');
  expect(stage.src.qmp.events.slice(from).map(({ event }) => event)).not.toContain('RESUME');
  expect(await stage.lastRecord()).toBe('rolled-back');
});

test('killed after the commit, nothing is touched, and the next agent says where the guest is', async () => {
  const stage = await scene();
  const child = stage.leave('--strategy', 'postcopy', '--max-bandwidth', '4MB/s', '--compress', 'off');
  await says(child, /"type":"progress","phase":"postcopy"/);
  await kill(child);
  const { src, dst, log } = stage;
  await expect.poll(async () => (await src.qmp.query('query-migrate'))['status']).toBe('postcopy-paused');
  const from = src.qmp.events.length;
  for (const times of [1, 2]) {
    await stage.restart();
    expect(log).toHaveLength(times);
  }
  expect(log[0]).toMatchObject({
    level: 'error',
    code: 'E_LINK_LOST',
    guestRunsOn: 'dest',
    msg: expect.stringMatching(/part of its memory is still on the source/),
    remedy: expect.stringMatching(/never let it run on the source/),
  });
  expect(await stage.lastRecord()).toBe('committed');
  expect(src.qmp.events.slice(from).map(({ event }) => event)).not.toContain('RESUME');
  expect(await dst.runState()).toBe('running');
  await stage.watcher.finish();
});

test('a guest that another agent migrates is left to it', async () => {
  const stage = await scene();
  const { src, dst, agents, log } = stage;
  const guests = { guest: `qemu:${src.productQmp}`, destGuest: `qemu:${dst.productQmp}` };
  const migration = agents.migrate({ ...guests, strategy: 'postcopy', maxBandwidth: 8e6, compress: 'off' });
  await when(migration, (event) => event.type === 'phase' && event.phase === 'precopy');
  await stage.restart();
  expect(log).toMatchObject([{ level: 'error', remedy: expect.stringMatching(/\S/) }]);
  expect((await migration.done).error).toBeNull();
  await nextPass(dst);
  expect((await checkBootSector(dst)).bad).toEqual([]);
  await stage.watcher.finish();
});

test('an agent that is started again has nothing to take back from a QEMU that has ended', async () => {
  const stage = await scene();
  const { src, agents } = stage;
  const { report } = await follow(
    agents.migrate({ guest: `qemu:${src.productQmp}`, destGuest: `qemu:${stage.dst.productQmp}` }),
  );
  expect(report.error).toBeNull();
  const dir = join(agents.stateDir, 'journal');
  const name = (await readdir(dir)).find((file) => file.endsWith('-source.journal'))!;
  const [started] = (await readFile(join(dir, name), 'utf8')).split('\n');
  await writeFile(join(dir, name), `${started}\n`);
  await src.process.exited;
  await stage.restart();
  expect(stage.log).toMatchObject([{ level: 'warn', code: 'E_GUEST_GONE' }]);
  await nextPass(stage.dst);
  expect((await checkBootSector(stage.dst)).bad).toEqual([]);
});
