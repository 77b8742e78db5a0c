/**
 * The codec between two real QEMUs. With VMFERRY_RECORD=1 the streams become the recordings that
 * stream-recordings.test.ts reads, under the version of that QEMU.
 */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { type Carried, carry } from './support/stream/carry.ts';
import { guestFault } from './support/stream/guest-rom.ts';
import { Qemu, type QemuOptions, type Version } from './support/stream/qemu.ts';

const MiB = 2 ** 20;
const running: Qemu[] = [];

async function start(options: QemuOptions): Promise<Qemu> {
  const qemu = await Qemu.start(options);
  running.push(qemu);
  return qemu;
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((qemu) => qemu.close()));
});

function hash(memory: Buffer): string {
  return createHash('sha256').update(memory).digest('hex');
}

async function record(name: string, { major, minor }: Version, carried: Carried): Promise<void> {
  if (process.env['VMFERRY_RECORD'] !== '1') return;
  const path = (part: string): string =>
    fileURLToPath(new URL(`recordings/qemu-${major}.${minor}-${name}.${part}.gz`, import.meta.url));
  await writeFile(path('stream'), gzipSync(carried.forth, { level: 9 }));
  if (carried.back.length > 0) await writeFile(path('replies'), gzipSync(carried.back, { level: 9 }));
}

/**
 * Both guests, the source's having written all its memory, and the migration under way until pass `passes`. Its rounds
 * take so long that a guest which gets little of the CPU has written again by their end: it would be over otherwise.
 */
async function underWay(
  options: QemuOptions,
  passes: number,
  capabilities: readonly string[] = [],
  destArgs: readonly string[] = [],
  bandwidth = 16 * MiB,
): Promise<{ source: Qemu; dest: Qemu; done: Promise<Carried> }> {
  const [source, dest] = await Promise.all([
    start(options),
    start({ ...options, args: [...(options.args ?? []), '-incoming', 'defer', ...destArgs] }),
  ]);
  for (const capability of capabilities) {
    await source.capability(capability);
    await dest.capability(capability);
  }
  await source.firstPass();
  const carrier = await carry(source, dest);
  await dest.run('migrate-incoming', { uri: carrier.destUri });
  // Rounds go on until the test lets them end.
  await source.run('migrate-set-parameters', { 'max-bandwidth': bandwidth, 'downtime-limit': 1 });
  await source.run('migrate', { uri: carrier.sourceUri });
  await source.waitFor('MIGRATION_PASS', ({ pass }) => Number(pass) >= passes);
  return { source, dest, done: carrier.done };
}

async function precopy(
  options: QemuOptions,
  passes: number,
): Promise<{ carried: Carried; version: Version }> {
  const { source, dest, done } = await underWay(options, passes, [], ['-S']);
  await source.run('migrate-set-parameters', { 'downtime-limit': 20_000 });
  await source.migrationStatus('completed');
  const carried = await done;
  await dest.migrationStatus('completed');
  expect(carried.end).toEqual({ state: 'opaque' });
  const [there, here] = [await source.memory(), await dest.memory()];
  expect(guestFault(there, options.top)).toBeUndefined();
  expect(hash(here)).toBe(hash(there));
  return { carried, version: await source.version() };
}

describe('between two QEMUs the codec', () => {
  it('carries a running guest by pre-copy, to the same memory', async () => {
    const { carried, version } = await precopy({ memoryMiB: 16, top: 12 * MiB }, 3);
    const known = ['opaque', 'pages', 'ram-end', 'ram-layout'];
    // Machine types of QEMU 10 and newer say when the switchover begins.
    if (version.major >= 10) known.push('switchover-start');
    expect([...carried.kinds].sort()).toEqual(known);
    await record('precopy', version, carried);
  }, 60_000);

  it('carries a guest of two memory back-ends, to the same memory', async () => {
    const args = [
      ...['-object', 'memory-backend-ram,id=m0,size=16M', '-object', 'memory-backend-ram,id=m1,size=16M'],
      ...['-numa', 'node,memdev=m0', '-numa', 'node,memdev=m1', '-vga', 'std'],
    ];
    await precopy({ memoryMiB: 32, top: 30 * MiB, args }, 2);
  }, 60_000);

  it('carries a running guest by post-copy, with its faults answered', async () => {
    const options = { memoryMiB: 16, top: 12 * MiB };
    // Slow enough that the first round cannot end, and with it the migration, before post-copy begins.
    const { source, dest, done } = await underWay(options, 1, ['postcopy-ram'], [], 4 * MiB);
    await source.run('migrate-start-postcopy');
    await dest.migrationStatus('completed');
    await source.migrationStatus('completed');
    const carried = await done;
    expect(carried.end).toEqual({ state: 'whole' });
    expect(carried.replies.map(({ type }) => type)).toContain('request-pages');
    expect(carried.replies.at(-1)).toMatchObject({ type: 'shut', value: 0 });
    for (const kind of ['advise', 'open-return-path', 'discard', 'packaged', 'state-complete', 'ram-end']) {
      expect(carried.kinds).toContain(kind);
    }
    await dest.run('stop');
    expect(guestFault(await dest.memory(), options.top)).toBeUndefined();
    await record('postcopy', await source.version(), carried);
  }, 60_000);
});
