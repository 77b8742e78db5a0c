import { afterEach, expect, test } from 'vitest';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { follow, startAgents } from './agents.ts';

const cleanups: (() => Promise<unknown>)[] = [];
function later<T>(thing: T, cleanup: (thing: T) => Promise<unknown>): T {
  cleanups.push(() => cleanup(thing));
  return thing;
}
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test.each(['precopy', 'postcopy', 'hybrid', 'auto'] as const)('a guest moves by %s', async (strategy) => {
  const options = { smp: 1 };
  const agents = later(await startAgents(), (a) => a.close());
  const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
  const watcher = later(await RunWatcher.watch([src.qemu, dst.qemu]), (w) => w.close());
  const { report, events } = await follow(
    agents.migrate({
      guest: `qemu:${src.qemu.productQmp}`,
      destGuest: `qemu:${dst.qemu.productQmp}`,
      strategy,
    }),
  );
  console.log(
    JSON.stringify(report, null, 1),
    events.filter((e) => e.type === 'decision' || e.type === 'note'),
  );
  expect(report.error).toBeNull();
  expect(report.outcome).toBe('completed');
  await verifyHistory([src, dst]);
  console.log(JSON.stringify(await watcher.finish()));
});
