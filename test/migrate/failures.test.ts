/** What breaks on the way: before the commit the guest goes on at the source, after it never again there. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { GuestError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import { parseJournal } from '@vmferry/engine/journal/records';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { describe, expect, test } from 'vitest';
import {
  type BootSectorOptions,
  checkBootSector,
  incomingBootSector,
  nextPass,
  startBootSector,
} from '../guest/boot-sector.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { within } from '../rig/process.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { type Agents, type AgentsOptions, follow, startAgents, when } from './agents.ts';
import { Gate } from './faulty-guest.ts';
import { diskBelongsTo, withSharedDisk } from './shared-disk.ts';
import { leftInTmp, settingsOf, useLater, usePrivateTmp, waitingState } from './traces.ts';

usePrivateTmp();
const later = useLater();

interface Scene {
  readonly agents: Agents;
  readonly src: QemuProcess;
  readonly dst: QemuProcess;
  readonly watcher: RunWatcher;
  /** Of the source's QEMU, as they were. */
  readonly settings: unknown;
}

interface SceneOptions extends AgentsOptions {
  readonly guest?: BootSectorOptions;
  /** Where it differs from the source's. */
  readonly dest?: BootSectorOptions;
  readonly gate?: Gate;
}

/** Two QEMUs, the boot-sector guest in the first, and agents for both. */
async function scene({ guest = {}, dest = guest, gate, ...parts }: SceneOptions = {}): Promise<Scene> {
  const src = later(await startBootSector(guest, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector(dest, { name: 'dst' }), (q) => q.stop());
  return await between(src, dst, gate ? { ...parts, destParts: { guests: gate.guests } } : parts);
}

async function between(src: QemuProcess, dst: QemuProcess, parts: AgentsOptions = {}): Promise<Scene> {
  const agents = later(await startAgents({}, parts), (a) => a.close());
  const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
  return { agents, src, dst, watcher, settings: await settingsOf(src) };
}

type Request = Partial<Parameters<Agents['migrate']>[0]>;

/** Slow enough for whatever is to happen in the first round or among post-copy's pages. */
const SLOW: Request = { maxBandwidth: 4e6, compress: 'off' };
/** The boot-sector guest writes to all of its memory all the time. */
const ANY_DOWNTIME: Request = { maxDowntimeMs: 60_000 };

function migrate({ agents, src, dst }: Scene, request: Request = {}): RunningMigration {
  return agents.migrate({ guest: `qemu:${src.productQmp}`, destGuest: `qemu:${dst.productQmp}`, ...request });
}

const phase =
  (name: string) =>
  (event: MigrationEvent): boolean =>
    event.type === 'phase' && event.phase === name;

const FIRST_ROUND = (event: MigrationEvent): boolean => event.type === 'progress' && event.rawBytes > 1e6;

interface Outcome {
  readonly outcome: 'failed' | 'cancelled';
  readonly code: string;
  readonly says?: RegExp;
  readonly in?: string;
  readonly side?: 'source' | 'dest';
}

function expectOutcome(report: MigrationReport, expected: Outcome): void {
  const { outcome, code, says = /\S/, in: failedIn, side } = expected;
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome });
  expect(exitStatus(report)).toBe(outcome === 'failed' ? 1 : 130);
  expect(report.error).toMatchObject({
    code,
    message: expect.stringMatching(says),
    remedy: expect.stringMatching(/\S/),
    ...(failedIn ? { phase: failedIn } : {}),
    ...(side ? { side } : {}),
  });
}

/** The guest goes on at the source with all its memory, as if nothing had been, and nothing is left anywhere. */
async function goesOnAtSource(scene: Scene, report: MigrationReport, expected: Outcome): Promise<void> {
  const { src, dst, watcher, settings, agents } = scene;
  expectOutcome(report, expected);
  expect(report.error?.guestRunsOn).toBe('source');
  await nextPass(src);
  expect((await checkBootSector(src)).bad).toEqual([]);
  expect(await settingsOf(src)).toEqual(settings);
  await within(20_000, () => 'end of the destination QEMU', dst.process.exited);
  const { spans } = await watcher.finish();
  expect(new Set(spans.map(({ qemu }) => qemu))).toEqual(new Set(['src']));
  expect(await leftInTmp()).toEqual([]);
  expect(await lastRecord(agents, 'source')).toBe('rolled-back');
}

async function lastRecord({ stateDir }: Agents, role: 'source' | 'dest'): Promise<string | undefined> {
  const dir = join(stateDir, 'journal');
  const [name] = (await readdir(dir)).filter((file) => file.endsWith(`-${role}.journal`));
  if (name === undefined) return undefined;
  return parseJournal(await readFile(join(dir, name), 'utf8')).records.at(-1)?.state;
}

/** Looks again until it is so: files tell nobody that they changed. */
async function until(what: string, look: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`it never came to this: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Post-copy or not, the source stands and goes on standing. */
async function staysStopped(src: QemuProcess): Promise<void> {
  const from = src.qmp.events.length;
  expect(await src.runState()).not.toBe('running');
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await src.runState()).not.toBe('running');
  expect(src.qmp.events.slice(from).map(({ event }) => event)).not.toContain('RESUME');
}

function needsOperator(report: MigrationReport, guestRunsOn: string, code: string): void {
  expect(report.outcome, JSON.stringify(report.error)).toBe('attention');
  expect(exitStatus(report)).toBe(3);
  expect(report.error).toMatchObject({ code, guestRunsOn, remedy: expect.stringMatching(/\S/) });
}

describe('cancelled', () => {
  const cancelled = { outcome: 'cancelled', code: 'E_CANCELLED' } as const;

  test.each(['at once', 'connect', 'preflight'])(
    'before anything began (%s), nothing was touched',
    async (moment) => {
      const stage = await scene();
      const waiting = await waitingState(stage.dst);
      const migration = migrate(stage);
      if (moment === 'connect') await Promise.resolve();
      if (moment === 'preflight') await when(migration, phase('preflight'));
      migration.cancel();
      const report = await migration.done;
      expectOutcome(report, cancelled);
      expect(report.error?.guestRunsOn).toBe('source');
      await nextPass(stage.src);
      expect(await settingsOf(stage.src)).toEqual(stage.settings);
      expect(await waitingState(stage.dst)).toEqual(waiting);
      expect((await follow(migrate(stage, { strategy: 'postcopy' }))).report.outcome).toBe('completed');
      await nextPass(stage.dst);
      await stage.watcher.finish();
    },
  );

  test('while both sides get ready, the guest stays, and the destination has ended or was not touched', async () => {
    const stage = await scene();
    const waiting = await waitingState(stage.dst);
    const migration = migrate(stage, { strategy: 'precopy' });
    await when(migration, phase('setup'));
    migration.cancel();
    expectOutcome(await migration.done, cancelled);
    const untouched = async (): Promise<unknown> => isDeepStrictEqual(await waitingState(stage.dst), waiting);
    await until('the destination QEMU has ended or is as it was', async () =>
      Boolean(stage.dst.process.status ?? (await untouched().catch(() => false))),
    );
    await nextPass(stage.src);
    expect(await settingsOf(stage.src)).toEqual(stage.settings);
    await stage.watcher.finish();
    expect(await leftInTmp()).toEqual([]);
  });

  test.each([
    ['right after the start', phase('precopy'), SLOW],
    ['in the first round', FIRST_ROUND, SLOW],
    ['after the first round', (event: MigrationEvent) => event.type === 'round', {}],
    ['in the third round', (event: MigrationEvent) => event.type === 'round' && event.row.round === 2, {}],
    ['during the switchover', phase('switchover'), ANY_DOWNTIME],
  ] as const)('%s, the guest stays', async (_, moment, request) => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'precopy', ...request });
    await when(migration, moment);
    migration.cancel();
    await goesOnAtSource(stage, await migration.done, cancelled);
  });

  test.each(['precopy', 'postcopy'] as const)(
    'while the destination loads (%s), the guest comes back',
    async (strategy) => {
      const gate = new Gate('ready');
      const stage = await scene({ gate });
      const migration = migrate(stage, { strategy, ...ANY_DOWNTIME });
      await gate.reached;
      migration.cancel();
      await goesOnAtSource(stage, await migration.done, { ...cancelled, in: 'switchover' });
    },
  );

  test.each(['precopy', 'postcopy'] as const)(
    'after the commit (%s) it is refused, and the migration ends well',
    async (strategy) => {
      const gate = new Gate('run');
      const stage = await scene({ gate });
      const migration = migrate(stage, { strategy, ...ANY_DOWNTIME });
      const followed = follow(migration);
      await gate.reached;
      migration.cancel();
      gate.open();
      const { report, events } = await followed;
      expect(report.outcome, JSON.stringify(report.error)).toBe('completed');
      const text = 'The migration can no longer be cancelled: the guest is committed to the destination.';
      expect(events).toContainEqual({ type: 'note', text });
      expect(report.notes).toContain(text);
      await nextPass(stage.dst);
      expect((await checkBootSector(stage.dst)).bad).toEqual([]);
      await stage.watcher.finish();
    },
  );

  test('while post-copy’s pages travel it is refused, and they go on', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'postcopy', ...SLOW, maxBandwidth: 20e6 });
    const followed = follow(migration);
    await when(migration, phase('postcopy'));
    migration.cancel();
    const { report } = await followed;
    expect(report.outcome, JSON.stringify(report.error)).toBe('completed');
    expect(report.notes).toContainEqual(expect.stringMatching(/can no longer be cancelled/));
    await nextPass(stage.dst);
    expect((await checkBootSector(stage.dst)).bad).toEqual([]);
    await stage.watcher.finish();
  });
});

describe('the destination’s QEMU', () => {
  const gone = {
    outcome: 'failed',
    code: 'E_GUEST_GONE',
    side: 'dest',
    says: /destination's QEMU is gone/,
  } as const;

  test.each([
    ['in the first round', FIRST_ROUND, SLOW, 'precopy'],
    ['at the switchover', phase('switchover'), ANY_DOWNTIME, 'switchover'],
  ] as const)('dies %s: the guest stays at the source', async (_, moment, request, failedIn) => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'precopy', ...request });
    await when(migration, moment);
    await stage.dst.crash();
    await goesOnAtSource(stage, await migration.done, { ...gone, in: failedIn });
  });

  test.each(['precopy', 'postcopy'] as const)(
    'cannot load the devices (%s): the guest goes on at the source, disks included',
    async (strategy) => {
      const { guest, disk } = await withSharedDisk();
      const stage = await scene({
        guest: { extraArgs: [...guest, '-device', 'virtio-balloon-pci'] },
        dest: { extraArgs: guest },
      });
      const { report } = await follow(migrate(stage, { strategy, ...ANY_DOWNTIME }));
      await goesOnAtSource(stage, report, {
        ...gone,
        says: /differs from the source's|QEMU is gone/,
        in: 'switchover',
      });
      expect(report.error?.remedy).toMatch(/a device that differs from the source's is the usual reason/);
      await diskBelongsTo(stage.src, disk);
    },
  );

  test.each(['precopy', 'postcopy'] as const)(
    'is given up when all is loaded (%s): the source takes guest and disks back',
    async (strategy) => {
      const { guest, disk } = await withSharedDisk();
      const gate = new Gate('ready');
      const stage = await scene({ gate, guest: { extraArgs: guest } });
      const migration = migrate(stage, { strategy, ...ANY_DOWNTIME });
      await gate.reached;
      gate.open(new GuestError('E_GUEST_FAILED', 'the test lets the load fail', 'none'));
      await goesOnAtSource(stage, await migration.done, {
        outcome: 'failed',
        code: 'E_GUEST_FAILED',
        side: 'dest',
        says: /the test lets the load fail/,
        in: 'switchover',
      });
      await diskBelongsTo(stage.src, disk);
    },
  );

  test('never becomes ready: the source waits as long as it was told, and goes on', async () => {
    const stage = await scene({ sourceParts: { switchoverLimits: { readyMs: 1000, runningMs: 30_000 } } });
    const migration = migrate(stage, { strategy: 'precopy', ...ANY_DOWNTIME });
    await when(migration, phase('switchover'));
    stage.dst.process.kill('SIGSTOP');
    const report = await migration.done;
    await nextPass(stage.src);
    stage.dst.process.kill('SIGCONT');
    await goesOnAtSource(stage, report, { outcome: 'failed', code: 'E_TIMEOUT', in: 'switchover' });
  });

  test('says nothing once all was sent: the source waits as long as it was told, and goes on', async () => {
    const gate = new Gate('ready');
    const stage = await scene({
      gate,
      sourceParts: { switchoverLimits: { readyMs: 1000, runningMs: 30_000 } },
    });
    const migration = migrate(stage, { strategy: 'postcopy' });
    await goesOnAtSource(stage, await migration.done, {
      outcome: 'failed',
      code: 'E_TIMEOUT',
      says: /not ready 1000 ms after the guest was sent/,
      in: 'switchover',
    });
  });

  test('dies after the commit: an operator is called, and the source does not run what ran elsewhere', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'postcopy', ...SLOW });
    await when(migration, phase('postcopy'));
    await stage.dst.crash();
    const report = await migration.done;
    needsOperator(report, 'neither', 'E_GUEST_GONE');
    expect(report.error).toMatchObject({ side: 'dest', phase: 'postcopy' });
    await staysStopped(stage.src);
    await stage.watcher.finish();
  });
});

describe('the source’s QEMU', () => {
  const gone = { outcome: 'failed', code: 'E_GUEST_GONE' } as const;

  async function nothingLeft(
    { dst, watcher }: Scene,
    report: MigrationReport,
    expected: Outcome,
  ): Promise<void> {
    expectOutcome(report, expected);
    expect(report.error).toMatchObject({ guestRunsOn: 'neither', side: 'source' });
    expect(await within(20_000, () => 'end of the destination QEMU', dst.process.exited)).toEqual({
      code: 0,
      signal: null,
    });
    const { spans } = await watcher.finish();
    expect(spans.map(({ qemu }) => qemu)).toEqual(['src']);
    expect(await leftInTmp()).toEqual([]);
  }

  test.each([
    ['in the first round', FIRST_ROUND, { strategy: 'precopy', ...SLOW }],
    ['at the switchover', phase('switchover'), { strategy: 'precopy', ...ANY_DOWNTIME }],
  ] as const)(
    'dies %s: the guest is gone, and nothing of it is left on the destination',
    async (_, moment, request) => {
      const stage = await scene();
      const migration = migrate(stage, request);
      await when(migration, moment);
      await stage.src.crash();
      await nothingLeft(stage, await migration.done, {
        ...gone,
        says: /the guest's QEMU on the source is gone/,
      });
    },
  );

  test('ends because the guest shuts itself down: that is what is said', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'precopy', ...SLOW });
    await when(migration, FIRST_ROUND);
    // The guest has no handler for it: a triple fault, and -no-reboot ends QEMU.
    await stage.src.qmp.execute('inject-nmi');
    await nothingLeft(stage, await migration.done, {
      ...gone,
      says: /the guest shut itself down/,
      in: 'precopy',
    });
  });

  test('dies after the commit: an operator is called, and the destination keeps what it has', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'postcopy', ...SLOW });
    await when(migration, phase('postcopy'));
    await stage.src.crash();
    const report = await migration.done;
    needsOperator(report, 'dest', 'E_GUEST_GONE');
    expect(report.error).toMatchObject({
      phase: 'postcopy',
      message: expect.stringMatching(/memory that had not been sent/),
    });
    expect(await stage.dst.runState()).toBe('running');
    await stage.watcher.finish();
  });
});

describe('the link', () => {
  const lost = { outcome: 'failed', code: 'E_LINK_LOST' } as const;

  test.each([
    ['a cut', async ({ agents }: Scene) => agents.wire.cut()],
    ['the destination agent’s end', async ({ agents }: Scene) => await agents.closeDest()],
  ])('in the first round, %s leaves the guest at the source', async (_, breaks) => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'precopy', to: stage.agents.wire.url, ...SLOW });
    await when(migration, FIRST_ROUND);
    await breaks(stage);
    await goesOnAtSource(stage, await migration.done, { ...lost, in: 'precopy' });
  });

  test.each(['precopy', 'postcopy'] as const)(
    'between SEALED and READY, a cut takes the guest back (%s)',
    async (strategy) => {
      const gate = new Gate('ready');
      const stage = await scene({ gate });
      const migration = migrate(stage, { strategy, to: stage.agents.wire.url, ...ANY_DOWNTIME });
      await gate.reached;
      await until('SEALED was said', async () => (await lastRecord(stage.agents, 'source')) === 'sealed');
      stage.agents.wire.cut();
      await goesOnAtSource(stage, await migration.done, { ...lost, in: 'switchover' });
    },
  );

  test.each(['precopy', 'postcopy'] as const)(
    'between COMMIT and RUNNING, a cut leaves the outcome to the destination (%s)',
    async (strategy) => {
      const gate = new Gate('run');
      const stage = await scene({ gate });
      const migration = migrate(stage, { strategy, to: stage.agents.wire.url, ...ANY_DOWNTIME });
      await gate.reached;
      stage.agents.wire.cut();
      const report = await migration.done;
      needsOperator(report, 'unknown', 'E_LINK_LOST');
      gate.open();
      await stage.dst.qmp.waitForEvent(({ event }) => event === 'RESUME', { from: 0 });
      await staysStopped(stage.src);
      expect(await stage.dst.runState()).toBe('running');
      await stage.watcher.finish();
      expect(await lastRecord(stage.agents, 'source')).toBe('committed');
      const [arrived] = stage.agents.dest.list();
      expect(arrived?.outcome).toBe(strategy === 'postcopy' ? 'attention' : 'completed');
    },
  );

  test('while post-copy’s pages travel, a cut calls an operator, and both QEMUs keep what they have', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'postcopy', to: stage.agents.wire.url, ...SLOW });
    await when(migration, phase('postcopy'));
    stage.agents.wire.cut();
    needsOperator(await migration.done, 'dest', 'E_LINK_LOST');
    await staysStopped(stage.src);
    expect(await stage.dst.runState()).toBe('running');
    const { spans } = await stage.watcher.finish();
    expect(spans.map(({ qemu }) => qemu)).toEqual(['src', 'dst']);
  });

  test('while post-copy’s pages travel, a destination agent that is told to end brings the rest first', async () => {
    const stage = await scene();
    const migration = migrate(stage, { strategy: 'postcopy', ...SLOW, maxBandwidth: 20e6 });
    await when(migration, phase('postcopy'));
    await stage.agents.closeDest();
    const report = await migration.done;
    expect(report.outcome, JSON.stringify(report.error)).toBe('completed');
    await nextPass(stage.dst);
    expect((await checkBootSector(stage.dst)).bad).toEqual([]);
    await stage.watcher.finish();
  });
});

describe('a guest that verifies its memory, rolled back out of post-copy', () => {
  const options = { workingSetMiB: 16, dirtyMBps: 12 };

  test.each([
    ['before its pages left', 4e6],
    ['when all its pages had left', 0],
  ])('%s, has lost none, and moves in the end', async (_, maxBandwidth) => {
    const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
    const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
    const gate = new Gate('ready');
    const stage = await between(src.qemu, dst.qemu, { destParts: { guests: gate.guests } });
    const migration = migrate(stage, { strategy: 'postcopy', maxBandwidth });
    await gate.reached;
    // Without a limit QEMU's stream comes to its end while nobody has said READY.
    if (maxBandwidth === 0) await allSent(migration);
    gate.open(new GuestError('E_GUEST_FAILED', 'the test lets the load fail', 'none'));
    const report = await migration.done;
    expectOutcome(report, { outcome: 'failed', code: 'E_GUEST_FAILED', in: 'switchover' });
    expect(report.error?.guestRunsOn).toBe('source');
    await src.nextTick();
    expect((await verifyHistory([src])).checked.bad).toBe(0);
    expect(await settingsOf(src.qemu)).toEqual(stage.settings);
    await dst.qemu.process.exited;
    const third = later(await GuestProcess.incoming(options, { name: 'third' }), (g) => g.stop());
    await stage.watcher.add(third.qemu);
    const again = later(await startAgents(), (a) => a.close());
    const { report: second } = await follow(
      migrate({ ...stage, agents: again, dst: third.qemu }, { strategy: 'postcopy' }),
    );
    expect(second.error).toBeNull();
    await verifyHistory([src, third]);
    await stage.watcher.finish();
  });

  async function allSent(migration: RunningMigration): Promise<void> {
    let last = -1;
    await when(migration, (event) => {
      if (event.type !== 'progress') return false;
      const still = event.rawBytes === last && last > 0;
      last = event.rawBytes;
      return still;
    });
  }
});

describe('a guest that was paused', () => {
  test.each(['precopy', 'postcopy'] as const)(
    'is paused at the destination, and runs when it is told to (%s)',
    async (strategy) => {
      const stage = await scene();
      const { src, dst, watcher } = stage;
      await src.qmp.execute('stop');
      const { report } = await follow(migrate(stage, { strategy }));
      expect(report.error).toBeNull();
      expect(report.outcome).toBe('completed');
      expect(await dst.runState()).toBe('paused');
      expect((await checkBootSector(dst)).bad).toEqual([]);
      expect(dst.qmp.events.map(({ event }) => event)).not.toContain('RESUME');
      await dst.qmp.execute('cont');
      await nextPass(dst);
      expect((await checkBootSector(dst)).bad).toEqual([]);
      await watcher.finish();
    },
  );

  test('stays paused at the source when it does not get away', async () => {
    const stage = await scene();
    await stage.src.qmp.execute('stop');
    const from = stage.src.qmp.events.length;
    const migration = migrate(stage, { strategy: 'precopy', ...SLOW });
    await when(migration, FIRST_ROUND);
    migration.cancel();
    expectOutcome(await migration.done, { outcome: 'cancelled', code: 'E_CANCELLED' });
    expect(await stage.src.runState()).toBe('paused');
    expect(stage.src.qmp.events.slice(from).map(({ event }) => event)).not.toContain('RESUME');
    await stage.src.qmp.execute('cont');
    await nextPass(stage.src);
  });
});

describe('a guest that was paused, and is given back when all of it was sent', () => {
  test.each(['precopy', 'postcopy'] as const)(
    'does not run, and the report says how it can be moved again (%s)',
    async (strategy) => {
      const gate = new Gate('ready');
      const stage = await scene({ gate });
      const { src } = stage;
      await src.qmp.execute('stop');
      const from = src.qmp.events.length;
      const migration = migrate(stage, { strategy });
      await gate.reached;
      gate.open(new GuestError('E_GUEST_FAILED', 'the test lets the load fail', 'none'));
      const report = await migration.done;
      expectOutcome(report, { outcome: 'failed', code: 'E_GUEST_FAILED' });
      expect(await src.runState()).toBe('postmigrate');
      expect(report.notes).toContainEqual(expect.stringMatching(/"postmigrate".*send cont and stop/));
      expect(src.qmp.events.slice(from).map(({ event }) => event)).not.toContain('RESUME');
      const next = later(await incomingBootSector({}, { name: 'next' }), (q) => q.stop());
      const refused = await follow(migrate({ ...stage, dst: next }, { strategy: 'precopy' }));
      expect(refused.report).toMatchObject({ outcome: 'refused', error: { code: 'E_GUEST_BUSY' } });
      await src.qmp.execute('cont');
      await src.qmp.execute('stop');
      const agents = later(await startAgents(), (a) => a.close());
      const moved = await follow(migrate({ ...stage, agents, dst: next }, { strategy: 'precopy' }));
      expect(moved.report.error).toBeNull();
      expect((await checkBootSector(next)).bad).toEqual([]);
    },
  );
});

describe('a journal that cannot be written', () => {
  async function unusable(): Promise<string> {
    const file = join(tmpdir(), 'a-file');
    await writeFile(file, '');
    return join(file, 'state');
  }

  test('on the source: the migration is refused', async () => {
    const stage = await scene({ source: { stateDir: await unusable() } });
    const waiting = await waitingState(stage.dst);
    const { report } = await follow(migrate(stage));
    expect(report.outcome, JSON.stringify(report.error)).toBe('refused');
    expect(report.error).toMatchObject({
      code: 'E_JOURNAL',
      side: 'source',
      guestRunsOn: 'source',
      message: expect.stringMatching(/cannot open the journal .*a-file/),
      remedy: expect.stringMatching(/Move that file away/),
    });
    await nextPass(stage.src);
    expect(await waitingState(stage.dst)).toEqual(waiting);
  });

  test('on the destination: the migration fails, and the guest has not noticed', async () => {
    const src = later(await startBootSector({}, { name: 'src' }), (q) => q.stop());
    const dst = later(await incomingBootSector({}, { name: 'dst' }), (q) => q.stop());
    const waiting = await waitingState(dst);
    const broken = later(await startAgents({ stateDir: await unusable() }), (a) => a.close());
    const { report } = await follow(
      broken.migrate({ guest: `qemu:${src.productQmp}`, destGuest: `qemu:${dst.productQmp}` }),
    );
    expectOutcome(report, {
      outcome: 'failed',
      code: 'E_JOURNAL',
      side: 'dest',
      says: /cannot open the journal .*a-file/,
      in: 'setup',
    });
    expect(report.error).toMatchObject({
      guestRunsOn: 'source',
      remedy: expect.stringMatching(/Move that file away/),
    });
    expect(src.qmp.events.map(({ event }) => event)).not.toContain('STOP');
    await nextPass(src);
    expect(await waitingState(dst)).toEqual(waiting);
  });
});
