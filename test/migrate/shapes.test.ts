/** Guests of other shapes than one CPU and one block of memory. */
import { describe, expect, test } from 'vitest';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import { GuestProcess, verifyHistory } from '../rig/guest.ts';
import { HugepagesError, reserveHugepages } from '../rig/hugepages.ts';
import { follow, startAgents } from './agents.ts';
import { useLater, usePrivateTmp } from './traces.ts';

usePrivateTmp();
const later = useLater();

type Strategy = 'precopy' | 'postcopy' | 'hybrid';

async function move(options: LinuxGuestOptions, strategy: Strategy, streams = 1): Promise<void> {
  const agents = later(await startAgents(), (a) => a.close());
  const src = later(await GuestProcess.boot(options, { name: 'src' }), (g) => g.stop());
  const dst = later(await GuestProcess.incoming(options, { name: 'dst' }), (g) => g.stop());
  const { report } = await follow(
    agents.migrate({
      guest: `qemu:${src.qemu.productQmp}`,
      destGuest: `qemu:${dst.qemu.productQmp}`,
      strategy,
      streams,
    }),
  );
  expect(report.error).toBeNull();
  expect(report).toMatchObject({ outcome: 'completed', strategy, link: { streams } });
  expect((await verifyHistory([src, dst])).checked.bad).toBe(0);
}

const nics = [
  { kind: 'user', mac: '52:54:00:00:00:01' },
  { kind: 'user', mac: '52:54:00:00:00:02' },
] as const;

describe.each<Strategy>(['precopy', 'postcopy', 'hybrid'])('by %s', (strategy) => {
  test('a guest with two vCPUs, two NICs and two NUMA nodes on memfd moves, on three streams', async () => {
    const shape = { smp: 2, numaMiB: [96, 96], nics, backend: { kind: 'memfd' } } as const;
    await move(shape, strategy, 3);
  });

  test('a guest with memory of a size as operators have it moves', async () => {
    await move({ plainMemory: true, dirtyMBps: 40, workingSetMiB: 24 }, strategy);
  });

  test('a guest on huge pages moves, where the machine has any', async () => {
    const guest = { backend: { kind: 'hugepages' } } as const;
    try {
      later(await reserveHugepages(2 * 192 + 8), (giveBack) => giveBack());
    } catch (error) {
      // A machine that gives none has none to be moved to either.
      expect(error).toBeInstanceOf(HugepagesError);
      return;
    }
    await move(guest, strategy);
  });
});

test('a guest whose memory is a file moves by precopy', async () => {
  await move({ backend: { kind: 'file' } }, 'precopy');
});
