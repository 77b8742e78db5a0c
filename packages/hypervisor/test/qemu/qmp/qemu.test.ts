import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { QmpClient } from '../../../src/qemu/qmp/client.ts';
import * as schema from '../../../src/qemu/qmp/schema.ts';
import { TestQemu } from '../support/qmp/qemu.ts';

const { typed } = schema;
let qemu: TestQemu;
beforeEach(async () => {
  qemu = await TestQemu.start(['-m', '64', '-nic', 'user,model=virtio-net-pci']);
});
afterEach(() => qemu.stop());

describe('a real QEMU', () => {
  it('answers every query in the shape that vmferry expects', async () => {
    const { client } = qemu;
    expect(client.oob).toBe(true);
    const { qemu: version } = await typed(client, 'query-version', schema.versionReply);
    expect(version).toMatchObject({ major: client.version.major, minor: client.version.minor });
    expect(await typed(client, 'query-status', schema.statusReply)).toMatchObject({ status: 'prelaunch' });
    expect(await typed(client, 'query-migrate', schema.migrateReply)).toEqual({});
    expect(await typed(client, 'query-migrate-capabilities', schema.capabilitiesReply)).toContainEqual({
      capability: 'postcopy-ram',
      state: false,
    });
    expect(await typed(client, 'query-migrate-parameters', schema.parametersReply)).toHaveProperty(
      'max-bandwidth',
    );
    expect(await typed(client, 'query-cpus-fast', schema.cpusReply)).toHaveLength(1);
    expect(await typed(client, 'query-memory-size-summary', schema.memorySizeReply)).toEqual({
      'base-memory': 64 << 20,
      'plugged-memory': 0,
    });
    expect(await typed(client, 'query-rx-filter', schema.rxFilterReply)).toHaveLength(1);
    expect(await schema.humanMonitor(client, 'info version')).toMatch(/^\d+\.\d+/);
  });

  it('says which part of an answer is not as expected', async () => {
    await expect(typed(qemu.client, 'query-status', z.object({ mood: z.string() }))).rejects.toMatchObject({
      code: 'E_QMP_REPLY',
      command: 'query-status',
      message: expect.stringContaining('mood'),
    });
  });

  it('sends its events as it runs and stops, with stamps of the wall clock', async () => {
    const { client } = qemu;
    const before = Date.now();
    const resumed = client.waitForEvent('RESUME', undefined, { timeoutMs: 5000 });
    const stopped = client.waitForEvent('STOP', undefined, { timeoutMs: 5000 });
    await client.execute('cont');
    await resumed;
    await client.execute('stop');
    const { atMs, data } = await stopped;
    expect(schema.stopEvent.parse(data)).toEqual({});
    expect(atMs).toBeGreaterThanOrEqual(before - 1);
    expect(atMs).toBeLessThanOrEqual(Date.now() + 1);
  });

  it('tells its rounds and its end of a migration', async () => {
    const { client } = qemu;
    const seen: string[] = [];
    client.on('MIGRATION', ({ data }) => seen.push(schema.migrationEvent.parse(data).status));
    const pass = client.waitForEvent('MIGRATION_PASS', undefined, { timeoutMs: 10_000 });
    const done = client.waitForEvent('MIGRATION', ({ data }) => data['status'] === 'completed', {
      timeoutMs: 10_000,
    });
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    await client.execute('cont');
    await client.execute('migrate', { uri: 'exec:cat >/dev/null' });
    // 11.1 begins with the second.
    expect([1, 2]).toContain(schema.migrationPassEvent.parse((await pass).data).pass);
    await done;
    // Newer versions tell of the device state in between.
    expect(seen.filter((status) => status !== 'device')).toEqual(['setup', 'active', 'completed']);
    const reply = await typed(client, 'query-migrate', schema.migrateReply);
    expect(reply).toMatchObject({ status: 'completed', ram: { remaining: 0 } });
    expect(reply.downtime).toBeGreaterThanOrEqual(0);
  });

  it('runs out-of-band commands', async () => {
    await expect(qemu.client.execute('migrate-pause', {}, { oob: true })).rejects.toMatchObject({
      code: 'E_QMP_COMMAND',
    });
    await expect(qemu.client.execute('query-status', {}, { oob: true })).rejects.toThrow(
      'does not support OOB',
    );
  });

  it('serves one client at a time and the next one after it', async () => {
    const options = { greetingTimeoutMs: 200 };
    await expect(QmpClient.connect(qemu.qmpPath, options)).rejects.toMatchObject({ code: 'E_QMP_TAKEN' });
    await qemu.client.close();
    const next = await QmpClient.connect(qemu.qmpPath);
    expect(await next.execute('query-status')).toMatchObject({ status: 'prelaunch' });
    await next.close();
  });

  it('that is killed rejects what waits', async () => {
    const event = qemu.client.waitForEvent('STOP');
    const gone = once(qemu.process, 'exit');
    qemu.process.kill('SIGKILL');
    await expect(event).rejects.toMatchObject({ code: 'E_QMP_CLOSED' });
    await gone;
  });

  it('says why it ends', async () => {
    const shutdown = qemu.client.waitForEvent('SHUTDOWN', undefined, { timeoutMs: 5000 });
    await qemu.client.execute('quit');
    expect(schema.shutdownEvent.parse((await shutdown).data)).toEqual({
      guest: false,
      reason: 'host-qmp-quit',
    });
    expect(await qemu.client.closed).toMatchObject({ code: 'E_QMP_CLOSED' });
  });
});
