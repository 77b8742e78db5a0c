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
  expect(report?.announce).toEqual({ frames: expect.any(Number), interfaces: ['br0'] });
  expect(report?.announce.frames).toBeGreaterThan(1);
  expect(stopToResumeMs).toBeLessThan(2000);
  expect(gapMs).toBeLessThan(5000);
}, 90_000);
