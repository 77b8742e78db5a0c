/** Guests of other shapes than one CPU and one block of memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { HugepagesError, reserveHugepages } from '../rig/hugepages.ts';
import { hostAfter } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { type Agents, follow, startAgents } from './agents.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

const STRATEGIES = ['precopy', 'postcopy', 'hybrid'] as const;

const nics = [
  { kind: 'user', mac: '52:54:00:00:00:01' },
  { kind: 'unplugged', mac: '52:54:00:00:00:02' },
] as const;

function migrate(agents: Agents, [here, there]: readonly [GuestProcess, GuestProcess], request: object) {
  const guest = `qemu:${here.qemu.productQmp}`;
  return follow(agents.migrate({ guest, destGuest: `qemu:${there.qemu.productQmp}`, ...request }));
}

/** One guest moves from QEMU to QEMU, each time by another strategy. */
async function movesByEach(options: LinuxGuestOptions, streams = 1): Promise<void> {
  const agents = later(await startAgents(), (a) => a.close());
  const places = [later(await GuestProcess.boot(options, { name: 'at-0' }), (g) => g.stop())];
  const watcher = later(await RunWatcher.watch([places[0]!.qemu]), (w) => w.close());
  for (const [index, strategy] of STRATEGIES.entries()) {
    const here = places.at(-1)!;
    const name = `at-${index + 1}`;
    const there = later(await GuestProcess.incoming(options, { name, host: hostAfter(index + 1) }), (g) =>
      g.stop(),
    );
    await watcher.add(there.qemu);
    const { report } = await migrate(agents, [here, there], { strategy, streams });
    expect(report.error, strategy).toBeNull();
    expect(report, strategy).toMatchObject({ outcome: 'completed', strategy, link: { streams } });
    await here.qemu.process.exited;
    places.push(there);
    expect((await verifyHistory(places)).checked.bad, strategy).toBe(0);
  }
  const { spans } = await watcher.finish();
  expect(spans).toHaveLength(places.length);
}

test('a guest with two vCPUs and two NICs moves by every strategy, on three streams', async () => {
  await movesByEach({ smp: 2, nics }, 3);
});

test('a guest of type q35 with two NUMA nodes on memfd moves by every strategy', async () => {
  await movesByEach({ machine: 'q35', smp: 2, numaMiB: [96, 96], backend: { kind: 'memfd' } });
});

test('a guest with memory of a size as operators have it moves by every strategy', async () => {
  await movesByEach({ plainMemory: true, dirtyMBps: 40, workingSetMiB: 24 });
});

test('a guest on huge pages moves by every strategy, where the machine has any', async () => {
  try {
    later(await reserveHugepages(2 * 192 + 8), (giveBack) => giveBack());
  } catch (error) {
    // A machine that gives none has none to be moved to either.
    expect(error).toBeInstanceOf(HugepagesError);
    expect(String(error)).toMatch(/\d+ MiB of huge pages asked, \d+ MiB to be had/);
    console.warn(`not tried: ${String(error)}`);
    return;
  }
  await movesByEach({ backend: { kind: 'hugepages' } });
});

test('a guest whose memory is files on tmpfs moves by every strategy', async () => {
  const dir = later(await mkdtemp('/dev/shm/vmt-'), (path) => rm(path, { recursive: true, force: true }));
  await within(dir, () => movesByEach({ smp: 2, numaMiB: [96, 96], backend: { kind: 'file' } }));
});

test('a guest whose memory is a file on a disk moves by pre-copy, and is not stopped to find out that post-copy cannot', async () => {
  const options = { backend: { kind: 'file' } } as const;
  const dir = later(await mkdtemp(join('/var/tmp', 'vmt-')), (path) =>
    rm(path, { recursive: true, force: true }),
  );
  await within(dir, async () => {
    const agents = later(await startAgents(), (a) => a.close());
    const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
    const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
    const { report: refused } = await migrate(agents, [src, dst], { strategy: 'postcopy' });
    expect(refused.outcome).toBe('refused');
    expect(refused.error).toMatchObject({
      code: 'E_NO_USERFAULTFD',
      side: 'dest',
      message: expect.stringMatching(/memory back-end mem0: .*mem0 is on a disk/),
      remedy: expect.stringMatching(/tmpfs or hugetlbfs.*--strategy precopy/),
    });
    expect(src.qemu.qmp.events.map(({ event }) => event)).not.toContain('STOP');
    const { report } = await migrate(agents, [src, dst], { strategy: 'auto' });
    expect(report.error).toBeNull();
    expect(report).toMatchObject({ outcome: 'completed', strategy: 'precopy' });
    expect(report.notes).toContainEqual(expect.stringMatching(/^Post-copy is not possible here: /));
    expect((await verifyHistory([src, dst])).checked.bad).toBe(0);
  });
});

/** The rig keeps a QEMU's files in the temporary directory. */
async function within(dir: string, work: () => Promise<void>): Promise<void> {
  const outer = tmpdir();
  process.env['TMPDIR'] = dir;
  try {
    await work();
  } finally {
    process.env['TMPDIR'] = outer;
  }
}
