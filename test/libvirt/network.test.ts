/** Agents as daemons on two hosts in namespaces, and a client that talks to the domain while it moves. */
import { expect, test } from 'vitest';
import { runLibvirtMigration } from '../peers/libvirt-migrations.ts';

test('a domain is announced from the bridge of the tap that libvirt gave it, and a client finds it again', async () => {
  const { report, gapMs, stopToResumeMs } = await runLibvirtMigration({
    by: 'vmferry',
    strategy: 'precopy',
    guest: {},
  });
  expect(report?.outcome).toBe('completed');
  expect(report?.announce).toMatchObject({ interfaces: ['br0'], underWay: true });
  expect(report?.announce.frames).toBeGreaterThan(0);
  // What is reported is what the hypervisors' own events say.
  expect(Math.abs(report!.downtimeMs - stopToResumeMs)).toBeLessThanOrEqual(
    report!.downtimeUncertaintyMs + 1,
  );
  // TCP asks again after up to twice the outage; the rest is for the machine.
  expect(gapMs).toBeLessThan(2 * stopToResumeMs + 5000);
}, 90_000);
