/** What a guest's memory is when it stops is what the destination holds before it runs, page by page. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { POSTCOPY_BATCH, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import type { SourcePlan } from '@vmferry/engine/guest';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import { QemuSourceGuest } from '@vmferry/hypervisor/qemu/source-guest';
import { expect, test } from 'vitest';
import type { GuestProcess } from '../rig/guest.ts';
import { twoHosts } from '../rig/two-hosts.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

const MEMORY_MIB = 128;
/** Live ones, while the guest writes, serves its client and takes in what comes for its NIC. */
const LEAST_ROUNDS = 5;
/**
 * QEMU ends by itself after a round that leaves no more than it sends in a millisecond. At a memory's speed that is more
 * than a guest writes meanwhile that gets little of the CPU.
 */
const BANDWIDTH = 64e6;
const BUFFER_BYTES = bytes(32 * 2 ** 20);
const DEST_PLAN = { postcopy: false, bufferBytes: BUFFER_BYTES };
const PLAN: SourcePlan = {
  postcopy: false,
  throttle: false,
  batches: { precopy: precopyBatch(Number.POSITIVE_INFINITY), postcopy: POSTCOPY_BATCH },
  bufferBytes: BUFFER_BYTES,
};

async function memoryOf({ qemu }: GuestProcess): Promise<Buffer> {
  const filename = join(qemu.dir, 'memory');
  await qemu.qmp.execute('pmemsave', { val: 0, size: MEMORY_MIB * 2 ** 20, filename });
  return await readFile(filename);
}

/** Numbers of pages. */
function differing(a: Buffer, b: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at < a.length; at += PAGE_BYTES)
    if (!a.subarray(at, at + PAGE_BYTES).equals(b.subarray(at, at + PAGE_BYTES))) found.push(at / PAGE_BYTES);
  return found;
}

/** By the drivers alone, up to the moment in which the destination could run the guest. Gives the live rounds. */
async function moveAll(
  source: QemuSourceGuest,
  dest: QemuDestGuest,
  opened: () => Promise<unknown>,
): Promise<number> {
  const prepared = await dest.prepare(await source.describe(), DEST_PLAN);
  if (!prepared.ok) throw prepared.reasons[0];
  await dest.open(DEST_PLAN, 'compared');
  let rounds = 0;
  const items = await source.open(PLAN, 'compared');
  await opened();
  for await (const item of items) {
    if (item.type === 'round-end') {
      rounds += 1;
      if (rounds === LEAST_ROUNDS) await source.switchover();
    } else if (item.type !== 'round-over' && item.type !== 'stopped' && item.type !== 'verbatim')
      await dest.apply(item);
  }
  await dest.ready();
  return rounds;
}

test('after many rounds with a busy guest not one page of the destination differs from the stopped source', async () => {
  const hosts = later(await twoHosts(), (h) => h.close());
  const size = { memoryMiB: MEMORY_MIB, fillMiB: 32, dirtyMBps: 20 };
  const [here, there] = [await hosts.startGuest('a', size), await hosts.startIncoming('b', size)];
  await hosts.probe();
  await here.nextTick();
  const source = later(await QemuSourceGuest.connect(here.qemu.productQmp), (g) => g.close());
  const dest = later(await QemuDestGuest.connect(there.qemu.productQmp), (g) => g.close());
  const slowDown = () => here.qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH });
  expect(await moveAll(source, dest, slowDown)).toBeGreaterThanOrEqual(LEAST_ROUNDS);
  expect(differing(await memoryOf(here), await memoryOf(there))).toEqual([]);
});
