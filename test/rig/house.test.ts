import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { checkBootSector, incomingBootSector, nextPass, startBootSector } from '../guest/boot-sector.ts';
import { GuestDamagedError, GuestProcess, verifyHistory } from './guest.ts';
import { migrateByQemu } from './migrate-qemu.ts';
import { RunWatcher, TwoRunningError } from './watcher.ts';

const cleanups: (() => Promise<unknown>)[] = [];

function later<T>(thing: T, cleanup: (thing: T) => Promise<unknown>): T {
  cleanups.push(() => cleanup(thing));
  return thing;
}

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test('a Linux guest moved by QEMU itself keeps every page, every tick and its one boot, and never runs twice', async () => {
  const options = { smp: 2, zeroPercent: 10 };
  const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
  const watcher = later(await RunWatcher.watch([src.qemu, dst.qemu]), (w) => w.close());
  expect((await src.check()).bad).toBe(0);
  await migrateByQemu(src.qemu, dst.qemu, { uri: `unix:${join(dst.qemu.dir, 'migration')}` });
  expect(await dst.qemu.runState()).toBe('paused');
  await dst.qemu.qmp.execute('cont');
  await dst.nextTick();
  const history = await verifyHistory([src, dst]);
  expect(history.checked.writes).toBeGreaterThan(0);
  expect(history.ticks.length).toBeGreaterThan(5);
  const report = await watcher.finish();
  expect(report.spans.map((span) => span.qemu)).toEqual(['src', 'dst']);
  expect(report.handovers).toHaveLength(1);
  expect(report.handovers[0]?.downtimeMs).toBeGreaterThan(0);
  expect(report.polls).toBeGreaterThan(10);
});

test('a busy guest comes through many rounds whole', async () => {
  const options = { workingSetMiB: 32, dirtyMBps: 18 };
  const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
  await migrateByQemu(src.qemu, dst.qemu, {
    uri: `unix:${join(dst.qemu.dir, 'migration')}`,
    parameters: { 'max-bandwidth': 60_000_000 },
  });
  const rounds = src.qemu.qmp.events.filter((event) => event.event === 'MIGRATION_PASS').length;
  expect(rounds).toBeGreaterThan(2);
  await dst.qemu.qmp.execute('cont');
  await verifyHistory([src, dst]);
});

test('the verifier finds a single bit that is not the guest’s own', async () => {
  const options = { dirtyMBps: 0, backend: { kind: 'file' } } as const;
  const src = later(await GuestProcess.boot(options, { name: 'damaged' }), (g) => g.stop());
  await verifyHistory([src]);
  await flipOneBit(join(src.qemu.dir, 'mem0'));
  await expect(verifyHistory([src])).rejects.toThrow(GuestDamagedError);
});

test('the watcher reports two QEMUs that run at once', async () => {
  const a = later(await startBootSector({}, { name: 'a' }), (q) => q.stop());
  const b = later(await startBootSector({}, { name: 'b' }), (q) => q.stop());
  const watcher = later(await RunWatcher.watch([a, b]), (w) => w.close());
  await nextPass(a);
  await nextPass(b);
  await expect(watcher.finish()).rejects.toThrow(TwoRunningError);
});

test('the boot-sector guest starts fast, moves, and its memory tells a sound move from a spoiled one', async () => {
  const backend = { kind: 'file' } as const;
  const src = later(await startBootSector({ backend }, { name: 'src' }), (q) => q.stop());
  const dst = later(await incomingBootSector({ backend }, { name: 'dst' }), (q) => q.stop());
  await migrateByQemu(src, dst, { uri: `unix:${join(dst.dir, 'migration')}` });
  expect((await checkBootSector(dst)).bad).toEqual([]);
  await dst.qmp.execute('cont');
  await nextPass(dst);
  expect(await checkBootSector(dst)).toEqual({ pages: 47 * 256, bad: [] });
  await dst.qmp.execute('stop');
  const ram = await open(join(dst.dir, 'mem0'), 'r+');
  const { buffer } = await ram.read(Buffer.alloc(1), 0, 1, 20 << 20);
  await ram.write(Buffer.from([(buffer[0] as number) ^ 0x40]), 0, 1, 20 << 20);
  await ram.close();
  expect((await checkBootSector(dst)).bad.map((bad) => bad.page)).toContain(20 << 8);
});

/** In the body of one of the verifier's pages, found by its magic number. */
async function flipOneBit(ram: string): Promise<void> {
  const file = await open(ram, 'r+');
  try {
    const { size } = await file.stat();
    const page = Buffer.alloc(4096);
    for (let at = size / 2; at < size; at += 4096) {
      await file.read(page, 0, 4096, at);
      if (page.toString('latin1', 0, 8) !== 'vmyrrefy') continue;
      await file.write(Buffer.from([(page[2000] as number) ^ 1]), 0, 1, at + 2000);
      return;
    }
  } finally {
    await file.close();
  }
  throw new Error('no page of the verifier found');
}
