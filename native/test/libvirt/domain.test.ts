import { expect, test } from 'vitest';
import { connect, domainXml } from './support.ts';

const names = (domains: readonly { name: string }[]) => domains.map(({ name }) => name).sort();

test('a domain is defined, started, suspended, resumed, destroyed and undefined', async () => {
  const connection = await connect();
  const domain = await connection.define(domainXml('life'));
  expect(domain).toMatchObject({ name: 'life', uuid: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  expect(await domain.state()).toEqual({ state: 'shut-off', reason: 'unknown' });
  expect(await domain.id()).toBeUndefined();
  expect(await domain.isActive()).toBe(false);
  expect(await domain.isPersistent()).toBe(true);
  await domain.create();
  expect(await domain.state()).toEqual({ state: 'running', reason: 'booted' });
  expect(await domain.isUpdated()).toBe(false);
  expect(await domain.info()).toMatchObject({ state: 'running', memoryKib: 131_072n, vcpus: 2 });
  await domain.suspend();
  expect(await domain.state()).toEqual({ state: 'paused', reason: 'user' });
  await domain.resume();
  expect(await domain.state()).toEqual({ state: 'running', reason: 'unpaused' });
  expect(await domain.xml()).toContain('<name>life</name>');
  expect(await domain.xml(['inactive'])).toContain('<name>life</name>');
  await domain.destroy();
  expect(await domain.state()).toEqual({ state: 'shut-off', reason: 'destroyed' });
  await domain.create();
  await domain.shutdown();
  expect(await domain.state()).toEqual({ state: 'shut-off', reason: 'shutdown' });
  await domain.undefine();
  await expect(connection.domainByName('life')).rejects.toMatchObject({ code: 'VIR_ERR_NO_DOMAIN' });
});

test('domains are listed by what they are and found by name, UUID and id', async () => {
  const connection = await connect();
  const idle = await connection.define(domainXml('idle'));
  await connection.createTransient(domainXml('passing'));
  expect(names(await connection.domains())).toEqual(['idle', 'one', 'passing']);
  expect(names(await connection.domains(['active']))).toEqual(['one', 'passing']);
  expect(names(await connection.domains(['inactive']))).toEqual(['idle']);
  expect(names(await connection.domains(['transient']))).toEqual(['passing']);
  expect(names(await connection.domains(['persistent', 'running']))).toEqual(['one']);
  expect((await connection.domainByName('idle')).uuid).toBe(idle.uuid);
  expect((await connection.domainByUuid(idle.uuid)).name).toBe('idle');
  const passing = await connection.domainByName('passing');
  const id = await passing.id();
  expect((await connection.domainById(id!)).name).toBe('passing');
  expect(await passing.isPersistent()).toBe(false);
  await passing.destroy();
  expect(names(await connection.domains())).toEqual(['idle', 'one']);
});

test('what is not there or cannot be now is refused with libvirt’s code', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  await expect(connection.domainByUuid('no uuid')).rejects.toMatchObject({ code: 'VIR_ERR_INVALID_ARG' });
  await expect(connection.domainById(4711)).rejects.toMatchObject({ code: 'VIR_ERR_NO_DOMAIN' });
  await expect(one.create()).rejects.toMatchObject({ message: expect.stringContaining('already running') });
  await expect(one.create(['paused'])).rejects.toMatchObject({
    message: expect.stringContaining('flags (0x1)'),
  });
  await expect(one.resume()).rejects.toMatchObject({ call: 'virDomainResume' });
  await expect(connection.define('<domain')).rejects.toMatchObject({ code: 'VIR_ERR_XML_DETAIL' });
  await expect(one.job()).rejects.toMatchObject({ code: 'VIR_ERR_NO_SUPPORT' });
  await expect(one.monitorCommand('query-status')).rejects.toMatchObject({ code: 'VIR_ERR_NO_SUPPORT' });
});

test('addresses come from each source', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  for (const source of ['lease', 'agent', 'arp'] as const) {
    expect(await one.addresses(source)).toEqual([
      {
        name: 'testnet0',
        hardwareAddress: '52:54:00:11:22:33',
        addresses: [{ family: 'ipv4', address: expect.stringMatching(/^192\.168\.50\./), prefix: 24 }],
      },
    ]);
  }
});

test('statistics are plain objects by libvirt’s names', async () => {
  const connection = await connect();
  await connection.define(domainXml('idle'));
  const all = await connection.allStatistics(['state'], ['active']);
  expect(all).toEqual([
    {
      domain: { name: 'one', uuid: '11111111-0000-4000-8000-000000000001', id: expect.any(Number) },
      statistics: { 'state.state': 1, 'state.reason': expect.any(Number) },
    },
  ]);
  const [idle] = await connection.statistics([await connection.domainByName('idle')]);
  expect(idle?.domain).toEqual({ name: 'idle', uuid: expect.any(String), id: undefined });
  expect(idle?.statistics['state.state']).toBe(5);
});

test('a freed domain is of no use, freeing it twice does no harm, and the others go on', async () => {
  const connection = await connect();
  const [a, b] = [await connection.domainByName('one'), await connection.domainByName('one')];
  a.free();
  a.free();
  await expect(a.state()).rejects.toMatchObject({ code: 'E_NATIVE_CLOSED' });
  await expect(connection.statistics([a])).rejects.toMatchObject({ code: 'E_NATIVE_CLOSED' });
  expect((await b.state()).state).toBe('running');
});

test('bad arguments are refused before libvirt is asked', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  const bounds = { code: 'E_NATIVE_BOUNDS' };
  await expect(one.undefine(['everything' as never])).rejects.toMatchObject({
    ...bounds,
    message: expect.stringContaining("no flag 'everything', only managed-save"),
  });
  await expect(one.xml(['__proto__' as never])).rejects.toMatchObject(bounds);
  await expect(one.addresses('dns' as never)).rejects.toMatchObject(bounds);
  await expect(connection.domainByName('o\0ne')).rejects.toMatchObject(bounds);
  await expect(connection.domainById(-1)).rejects.toMatchObject(bounds);
  await expect(connection.statistics([])).rejects.toMatchObject(bounds);
  await expect(one.startDirtyRateCalculation(0)).rejects.toMatchObject(bounds);
  await expect(one.setMaxDowntimeMs(-1n)).rejects.toMatchObject(bounds);
  await expect(one.setMaxDowntimeMs(2n ** 64n)).rejects.toMatchObject(bounds);
  await expect(one.setMaxSpeedMib(2 ** 53)).rejects.toMatchObject(bounds);
  await expect(one.setCompressionCacheBytes(0.5)).rejects.toMatchObject(bounds);
  await expect(one.migrateToUri('x\0', { flags: [] })).rejects.toMatchObject(bounds);
});

test('of a disk libvirt tells three sizes', async () => {
  const connection = await connect();
  const domain = await connection.createTransient(domainXml('disks'));
  // What the driver inside libvirt says of any.
  expect(await domain.blockInfo('vda')).toEqual({
    capacityBytes: 1_099_506_450_432n,
    allocationBytes: 1_099_511_627_776n,
    physicalBytes: 1_099_511_627_776n,
  });
  await expect(domain.blockInfo('vdb')).rejects.toMatchObject({ code: 'VIR_ERR_INVALID_ARG' });
});
