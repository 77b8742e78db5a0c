/** Rounds of pre-copy, of a guest whose memory has a size as operators have it (`rig/qemu.ts` says what is special). */
import { expect, test } from 'vitest';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { qemuOf, versionOf } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { follow, startAgents } from './agents.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

/** From here on TCG's dirty log can be read any number of times. */
const SOUND_DIRTY_LOG = 9;

/** Moves a guest over a link of 40 MB/s, and holds it against all that must be true of it. */
async function moved(options: LinuxGuestOptions, request: object) {
  const agents = later(await startAgents(), (a) => a.close());
  const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
  const watcher = later(await RunWatcher.watch([src.qemu, dst.qemu]), (w) => w.close());
  await trustTheOperator(src.qemu);
  const { report, events } = await follow(
    agents.migrate({
      guest: `qemu:${src.qemu.productQmp}`,
      destGuest: `qemu:${dst.qemu.productQmp}`,
      ...{ strategy: 'precopy', compress: 'off', maxBandwidth: 40e6 },
      ...request,
    }),
  );
  expect(report.error).toBeNull();
  expect(report.outcome).toBe('completed');
  expect((await verifyHistory([src, dst])).checked.bad).toBe(0);
  await watcher.finish();
  const passes = src.qemu.qmp.events.filter(({ event }) => event === 'MIGRATION_PASS').length;
  return { report, events, passes };
}

/** A QEMU that is told of a fast link (8.2 and newer) would switch over at the end of its first round. */
async function trustTheOperator({ qmp }: QemuProcess): Promise<void> {
  const parameters = await qmp.query('query-migrate-parameters');
  if (parameters['avail-switchover-bandwidth'] === undefined) return;
  await qmp.execute('migrate-set-parameters', { 'avail-switchover-bandwidth': 1e12 });
}

test('a guest has as many live rounds as its QEMU’s dirty log bears, and nothing of it is lost', async () => {
  const options = { plainMemory: true, workingSetMiB: 16, dirtyMBps: 12 };
  const { report, passes } = await moved(options, { maxDowntimeMs: 150 });
  const { major } = await versionOf(qemuOf('a'));
  const told = JSON.stringify({ passes, report }, null, 1);
  // The last pass is that of the stopped guest.
  if (major >= SOUND_DIRTY_LOG) {
    expect(passes, told).toBeGreaterThan(3);
    expect(report.rounds.length, told).toBeGreaterThan(3);
  } else expect(passes, told).toBe(2);
});

test('a guest that writes faster than the link carries is slowed down until it fits, where that was asked for', async () => {
  const options = { workingSetMiB: 24, dirtyMBps: 60 };
  // A busy host slows the guest down, too.
  const { events } = await moved(options, { onStall: 'throttle', maxDowntimeMs: 300, maxBandwidth: 20e6 });
  expect(events).toContainEqual(
    expect.objectContaining({ type: 'decision', what: expect.stringMatching(/throttle the guest by \d+ %/) }),
  );
});
