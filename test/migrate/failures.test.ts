/** What breaks on the way: before the commit the guest goes on at the source, after it never again there. */
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { GuestError } from '@vmferry/engine/errors';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { describe, expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { within } from '../rig/process.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { FIRST_ROUND, follow, phase, startAgents, when } from './agents.ts';
import { Gate } from './faulty-guest.ts';
import {
  ANY_DOWNTIME,
  expectOutcome,
  goesOnAtSource,
  lastRecord,
  migrate,
  type Outcome,
  type Scene,
  SLOW,
  until,
  useScenes,
} from './scene.ts';
import { diskBelongsTo, withSharedDisk } from './shared-disk.ts';
import { leftInTmp, settingsOf, useLater, usePrivateTmp, waitingState } from './traces.ts';

usePrivateTmp();
const later = useLater();
const { between, scene } = useScenes(later);

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
