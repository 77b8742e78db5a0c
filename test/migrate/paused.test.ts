/** A guest that was paused before it is moved: it stays so, whether it gets away or not. */
import { GuestError } from '@vmferry/engine/errors';
import { describe, expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass } from '../guest/boot-sector.ts';
import { FIRST_ROUND, follow, startAgents, when } from './agents.ts';
import { Gate } from './faulty-guest.ts';
import { expectOutcome, migrate, SLOW, useScenes } from './scene.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();
const { scene } = useScenes(later);

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
