/** Cancelled: before the commit the guest goes on at the source, after it the migration goes on. */
import { isDeepStrictEqual } from 'node:util';
import type { MigrationEvent } from '@vmferry/engine/events';
import { describe, expect, test } from 'vitest';
import { checkBootSector, nextPass } from '../guest/boot-sector.ts';
import { FIRST_ROUND, follow, phase, when } from './agents.ts';
import { Gate } from './faulty-guest.ts';
import { ANY_DOWNTIME, expectOutcome, goesOnAtSource, migrate, SLOW, until, useScenes } from './scene.ts';
import { leftInTmp, settingsOf, useLater, usePrivateTmp, waitingState } from './traces.ts';

usePrivateTmp();
const { scene } = useScenes(useLater());

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
