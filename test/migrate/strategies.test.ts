/** A guest that verifies every page it owns moves there and back, again and again, by each strategy. */
import type { ChosenStrategy } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { expect, test } from 'vitest';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { within } from '../rig/process.ts';
import { hostAfter } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { follow, startAgents } from './agents.ts';
import { leftInTmp, settingsOf, useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

const ROUND_TRIPS = 10;
/** Small, for it moves sixty times. */
const GUEST: LinuxGuestOptions = { memoryMiB: 112, fillMiB: 32, zeroPercent: 10 };

test.each(['precopy', 'postcopy', 'hybrid'] as const)(
  `a guest moves there and back ${ROUND_TRIPS} times by %s, and nothing of it is lost`,
  async (strategy) => {
    // Two hosts with an agent of each kind: what leaves the one enters the other.
    const hosts = [
      later(await startAgents(), (a) => a.close()),
      later(await startAgents(), (a) => a.close()),
    ];
    const first = later(await GuestProcess.boot(GUEST, { name: 'at-0' }), (g) => g.stop());
    const watcher = later(await RunWatcher.watch([first.qemu]), (w) => w.close());
    const places = [first];
    const reports: MigrationReport[] = [];
    const ends: Promise<unknown>[] = [];
    for (let move = 1; move <= 2 * ROUND_TRIPS; move += 1) {
      const here = places.at(-1) as GuestProcess;
      const there = later(
        await GuestProcess.incoming(GUEST, { name: `at-${move}`, host: hostAfter(move) }),
        (g) => g.stop(),
      );
      await watcher.add(there.qemu);
      const settings = await settingsOf(there.qemu);
      const { report } = await follow(
        hosts[move % 2]!.migrate({
          guest: `qemu:${here.qemu.productQmp}`,
          destGuest: `qemu:${there.qemu.productQmp}`,
          strategy,
        }),
      );
      expect(report.error, `move ${move}`).toBeNull();
      expect(report).toMatchObject({ outcome: 'completed', strategy });
      // Every page went at least once, whichever way it took.
      const { raw, zero } = report.pages;
      expect(raw + zero).toBeGreaterThanOrEqual(here.qemu.options.memoryMiB * 256);
      expect(await settingsOf(there.qemu), `move ${move}`).toEqual(settings);
      // It ends while the next move is made ready.
      ends.push(within(30_000, () => `end of the source QEMU of move ${move}`, here.qemu.process.exited));
      places.push(there);
      reports.push(report);
      await there.nextTick();
    }
    await Promise.all(ends);
    const { ticks } = await verifyHistory(places);
    expect(ticks.every(({ bad }) => bad === 0)).toBe(true);
    const { spans, handovers } = await watcher.finish();
    expect(spans.map(({ qemu }) => qemu)).toEqual(places.map(({ qemu }) => qemu.name));
    // What is reported is what the hypervisors' own events say.
    for (const [index, { downtimeMs, downtimeUncertaintyMs }] of reports.entries()) {
      const seen = handovers[index]!.downtimeMs;
      expect(Math.abs(downtimeMs - seen), `move ${index + 1}`).toBeLessThanOrEqual(downtimeUncertaintyMs + 1);
    }
    expect(await leftInTmp()).toEqual([]);
    console.log(summary(strategy, reports));
  },
  240_000,
);

test('auto chooses a strategy, and says which and why', async () => {
  const agents = later(await startAgents(), (a) => a.close());
  const src = later(await GuestProcess.boot(GUEST, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(GUEST, { name: 'dst' }), (g) => g.stop());
  const watcher = later(await RunWatcher.watch([src.qemu, dst.qemu]), (w) => w.close());
  const { report, events } = await follow(
    agents.migrate({ guest: `qemu:${src.qemu.productQmp}`, destGuest: `qemu:${dst.qemu.productQmp}` }),
  );
  expect(report.error).toBeNull();
  expect(report.outcome).toBe('completed');
  expect(report.switchover.reason).not.toBe('');
  expect(['precopy', 'hybrid']).toContain(report.strategy);
  expect(events).toContainEqual(
    expect.objectContaining({
      type: 'decision',
      // Pre-copy that stalls goes over to post-copy, which makes it a hybrid.
      strategy: expect.stringMatching(report.strategy === 'hybrid' ? /^(precopy|hybrid)$/ : /^precopy$/),
      why: expect.stringMatching(/\S/),
    }),
  );
  await verifyHistory([src, dst]);
  await watcher.finish();
});

function summary(strategy: ChosenStrategy, reports: readonly MigrationReport[]): string {
  const row = (name: string, values: readonly number[]): string => {
    const sorted = [...values].sort((a, b) => a - b);
    const ms = (value: number | undefined): string => (value ?? 0).toFixed(1);
    return `${name} ${ms(sorted[0])}/${ms(sorted[Math.floor(sorted.length / 2)])}/${ms(sorted.at(-1))}`;
  };
  const downtimes = reports.map(({ downtimeMs }) => downtimeMs);
  const totals = reports.map(({ totalMs }) => totalMs);
  return `${strategy}: ${reports.length} moves, ms min/median/max: ${row('downtime', downtimes)}, ${row('total', totals)}`;
}
