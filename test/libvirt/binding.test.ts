/** The libvirt binding on real daemons: what the driver inside libvirt (native/test/libvirt) does not have. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { LibvirtError, MonitorCommandError } from '@vmferry/native/libvirt/errors';
import type { DomainEvent, DomainEvents } from '@vmferry/native/libvirt/events';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { bootSectorDomain, runsOn } from '../guest/boot-sector-domain.ts';
import { type LibvirtHost, startLibvirtHosts } from '../rig/libvirt.ts';
import { removeDomain } from '../rig/libvirt-guest.ts';
import { within } from '../rig/process.ts';
import { type TwoHosts, twoHosts } from '../rig/two-hosts.ts';

let rig: TwoHosts;
let a: LibvirtHost;
let b: LibvirtHost;
let toA: LibvirtConnection;
let toB: LibvirtConnection;

beforeAll(async () => {
  rig = await twoHosts();
  ({ a, b } = await startLibvirtHosts(rig));
  [toA, toB] = await Promise.all([a.connect(), b.connect()]);
});

afterAll(async () => {
  await Promise.all([toA?.close(), toB?.close()]);
  await rig?.close();
});

afterEach(async () => {
  for (const [host, connection] of [
    [a, toA],
    [b, toB],
  ] as const) {
    for (const { uuid } of await connection.domains()) await removeDomain(host, connection, uuid);
  }
});

let guests = 0;

async function startGuest(devices = ''): Promise<Domain> {
  const number = ++guests;
  const uuid = `11111111-2222-4000-8000-${String(number).padStart(12, '0')}`;
  const domain = await toA.createTransient(
    await bootSectorDomain({ name: `guest-${number}`, uuid, devices }),
  );
  await runsOn(a, domain.name);
  return domain;
}

/** Collects events and waits for those that match. */
async function record<E extends DomainEvent>(connection: LibvirtConnection, event: E) {
  const seen: DomainEvents[E][] = [];
  let look = () => {};
  const subscription = await connection.subscribe(event, (each) => {
    seen.push(each);
    look();
  });
  const waitFor = (matches: (each: DomainEvents[E]) => boolean = () => true) =>
    within(
      20_000,
      () =>
        `an event ${event}, after ${JSON.stringify(seen, (_, v) => (typeof v === 'bigint' ? `${v}` : v))}`,
      new Promise<DomainEvents[E]>((resolve) => {
        look = () => {
          const found = seen.find(matches);
          if (found !== undefined) resolve(found);
        };
        look();
      }),
    );
  return { seen, waitFor, close: () => subscription.close() };
}

/** Where RAM goes: a socket that QEMU listens on there and connects to from here. */
const migrateUri = () => `unix://${join(b.dir, `ram-${guests}`)}`;

test('a host tells what it is and what its guests can have', async () => {
  const { host } = toA;
  expect(await host.driver()).toBe('QEMU');
  expect(await host.hostname()).toBe('host-a');
  expect(toA.keepsAlive).toBe(true);
  expect(await toA.isAlive()).toBe(true);
  expect(await host.isSecure()).toBe(true);
  expect(await host.daemonVersion()).toBeGreaterThan(7_002_000);
  expect(await host.hypervisorVersion()).toBeGreaterThan(1_000_000);
  expect((await host.nodeInfo()).memoryKib).toBeGreaterThan(1024n * 1024n);
  expect(await host.memoryStats()).toMatchObject({ total: expect.any(BigInt), free: expect.any(BigInt) });
  expect(await host.freePages([4, 2048])).toEqual([expect.any(BigInt), expect.any(BigInt)]);
  expect(await host.networks()).toEqual([]);
  const capabilities = await host.capabilities();
  expect(capabilities).toContain(`<uuid>${a.hostUuid}</uuid>`);
  const choice = { architecture: 'x86_64', virtType: 'qemu', machine: 'pc' } as const;
  expect(await host.domainCapabilities(choice)).toContain('<domain>qemu</domain>');
  const cpu = (model: string, features = '') => `<cpu match='exact'><model>${model}</model>${features}</cpu>`;
  expect(await host.compareHypervisorCpu(cpu('qemu64'), choice)).not.toBe('incompatible');
  const impossible = cpu('qemu64', "<feature policy='require' name='avx512-bf16'/>");
  expect(await host.compareHypervisorCpu(impossible, choice)).toBe('incompatible');
  await expect(host.compareHypervisorCpu(impossible, choice, ['fail-incompatible'])).rejects.toMatchObject({
    code: 'VIR_ERR_CPU_INCOMPATIBLE',
  });
  expect(['identical', 'superset', 'incompatible']).toContain(await host.compareCpu(cpu('qemu64')));
});

test('a definition is kept and started paused, and statistics come with all their bits', async () => {
  const xml = await bootSectorDomain({ name: 'kept', uuid: '11111111-3333-4000-8000-000000000001' });
  const domain = await toA.define(xml, ['validate']);
  await domain.create(['paused']);
  expect(await domain.state()).toEqual({ state: 'paused', reason: 'user' });
  await domain.resume();
  await runsOn(a, 'kept');
  const [all] = await toA.statistics([domain]);
  expect(all?.statistics).toMatchObject({
    'state.state': 1,
    'cpu.time': expect.any(BigInt),
    'block.0.name': 'fda',
    'balloon.current': 65_536n,
  });
  expect((await domain.blockInfo('fda')).capacityBytes).toBe(512n);
  await domain.startDirtyRateCalculation(1);
  await expect
    .poll(async () => toA.dirtyRate(domain), { timeout: 10_000 })
    .toEqual({ status: 'measured', mibPerSecond: expect.any(Number), periodSeconds: 1 });
  await domain.destroy(['graceful']);
  expect(await domain.state()).toEqual({ state: 'shut-off', reason: 'destroyed' });
  await domain.undefine(['managed-save', 'snapshots-metadata', 'checkpoints-metadata', 'nvram']);
});

test('QEMU’s monitor answers, refuses and tells of its events', async () => {
  const domain = await startGuest();
  expect(await domain.monitorCommand('query-status')).toMatchObject({ status: 'running' });
  expect(await domain.monitorCommand('qom-get', { path: '/machine', property: 'type' })).toMatch(/pc/);
  expect(await domain.humanMonitorCommand('info version')).toMatch(/^\d+\.\d+/);
  const refused = await domain.monitorCommand('no-such-command').catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(MonitorCommandError);
  expect(refused).toMatchObject({ command: 'no-such-command', errorClass: 'CommandNotFound' });
  const names: string[] = [];
  let both = () => {};
  const came = new Promise<void>((resolve) => {
    both = resolve;
  });
  await toA.subscribeMonitor(
    '^(stop|resume)$',
    ({ event, domain: from, timeMs }) => {
      names.push(`${from.name} ${event}`);
      expect(Math.abs((timeMs ?? 0) - Date.now())).toBeLessThan(60_000);
      if (event === 'RESUME') both();
    },
    { domain, flags: ['pattern', 'ignore-case'] },
  );
  await domain.suspend();
  await domain.resume();
  await within(10_000, () => `STOP and RESUME, after ${names}`, came);
  expect(names).toEqual([`${domain.name} STOP`, `${domain.name} RESUME`]);
});

test('the agent’s channel and a device that leaves are events, addresses come from ARP', async () => {
  const agent = await record(toA, 'agent');
  const removed = await record(toA, 'device-removed');
  const mac = '52:54:00:76:66:77';
  const domain = await startGuest(`
    <controller type='usb' model='piix3-uhci'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <interface type='bridge'><mac address='${mac}'/><source bridge='br0'/><model type='e1000'/></interface>
    <input type='tablet' bus='usb'><alias name='ua-tablet'/></input>`);
  expect(await agent.waitFor()).toMatchObject({
    domain: { name: domain.name, uuid: domain.uuid },
    state: 'disconnected',
    reason: 'domain-started',
  });
  const reply = domain.agentCommand('guest-ping', undefined, { timeoutSeconds: 1 });
  await expect(reply).rejects.toMatchObject({ code: 'VIR_ERR_AGENT_UNRESPONSIVE' });
  await expect(domain.addresses('agent')).rejects.toMatchObject({ code: 'VIR_ERR_AGENT_UNRESPONSIVE' });
  expect(await domain.addresses('lease')).toEqual([]);
  await rig.exec('a', ['ip', 'neigh', 'add', '10.0.0.77', 'lladdr', mac, 'dev', 'br0', 'nud', 'permanent']);
  const arp = await domain.addresses('arp').catch((error: unknown) => error);
  // libvirt 9.0 cannot read the table of a kernel from 6.10 on.
  if (!(arp instanceof LibvirtError && arp.message.includes('wrong nlmsg len'))) {
    expect(arp).toEqual([
      {
        name: expect.stringMatching(/^vnet/),
        hardwareAddress: mac,
        addresses: [{ family: 'ipv4', address: '10.0.0.77', prefix: 0 }],
      },
    ]);
  }
  await domain.detachDevice("<input type='tablet' bus='usb'><alias name='ua-tablet'/></input>", ['live']);
  expect(await removed.waitFor()).toMatchObject({ domain: { name: domain.name }, device: 'ua-tablet' });
  await Promise.all([agent.close(), removed.close()]);
});

test('a peer-to-peer migration is steered, watched and ends with its figures', async () => {
  const domain = await startGuest();
  const iterations = await record(toA, 'migration-iteration');
  const completed = await record(toA, 'job-completed');
  const arrived = await record(toB, 'lifecycle');
  await domain.setMaxSpeedMib(4);
  expect(await domain.maxSpeedMib()).toBe(4n);
  await domain.setCompressionCacheBytes(32n << 20n);
  expect(await domain.compressionCacheBytes()).toBe(32n << 20n);
  const migrating = domain.migrateToUri(b.uri, {
    flags: ['live', 'peer-to-peer', 'compressed'],
    migrateUri: migrateUri(),
  });
  await iterations.waitFor(({ iteration }) => iteration === 1);
  expect(await domain.jobInfo()).toMatchObject({ type: 'unbounded', memoryTotalBytes: expect.any(BigInt) });
  await expect
    .poll(async () => (await domain.job()).statistics.memory_processed ?? 0n, { timeout: 10_000 })
    .toBeGreaterThan(0n);
  expect(await domain.job()).toMatchObject({ type: 'unbounded', operation: 'migration-out' });
  await domain.setMaxDowntimeMs(5000);
  expect(await domain.maxDowntimeMs()).toBe(5000n);
  await domain.setMaxSpeedMib(1000);
  await migrating;
  const { operation, statistics } = await completed.waitFor();
  expect(operation).toBe('migration-out');
  expect(statistics.time_elapsed).toBeGreaterThan(0n);
  expect(statistics.downtime).toBeGreaterThan(0n);
  expect(statistics.memory_total).toBeGreaterThan(48n << 20n);
  expect(await arrived.waitFor(({ event }) => event === 'resumed')).toMatchObject({ detail: 'migrated' });
  await runsOn(b, domain.name);
  await expect(domain.state()).rejects.toMatchObject({ code: 'VIR_ERR_NO_DOMAIN' });
  const there = await toB.domainByName(domain.name);
  expect(await there.job(['completed', 'keep-completed'])).toMatchObject({
    type: 'completed',
    operation: 'migration-in',
  });
  expect((await there.job(['completed'])).type).toBe('completed');
  expect((await there.job(['completed'])).type).toBe('none');
  await Promise.all([iterations.close(), completed.close(), arrived.close()]);
});

test('a migration that is given up leaves the guest where it was', async () => {
  const domain = await startGuest();
  const iterations = await record(toA, 'migration-iteration');
  const options = { flags: ['live', 'peer-to-peer'], bandwidth: 1 } as const;
  const giveUp = new AbortController();
  const migrating = domain.migrateToUri(b.uri, {
    ...options,
    migrateUri: migrateUri(),
    signal: giveUp.signal,
  });
  migrating.catch(() => {});
  await iterations.waitFor();
  giveUp.abort();
  // libvirt tells its own abort, or what it heard first: that the destination's QEMU ended.
  await expect(migrating).rejects.toMatchObject({
    code: expect.stringMatching(/^VIR_ERR_(OPERATION_ABORTED|INTERNAL_ERROR)$/),
    call: 'virDomainMigrateToURI3',
  });
  expect((await domain.state()).state).toBe('running');
  await runsOn(a, domain.name);
  // Before libvirt has a job to abort, too.
  const early = new AbortController();
  const again = domain.migrateToUri(b.uri, { ...options, migrateUri: migrateUri(), signal: early.signal });
  early.abort();
  await expect(again).rejects.toBeInstanceOf(LibvirtError);
  await runsOn(a, domain.name);
  expect(await toB.domains()).toEqual([]);
  await iterations.close();
});

test('a managed migration with post-copy brings the domain, and one that is paused is resumed', async () => {
  const domain = await startGuest();
  const iterations = await record(toA, 'migration-iteration');
  await domain.setMaxSpeedMib(10, ['post-copy']);
  expect(await domain.maxSpeedMib(['post-copy'])).toBe(10n);
  const options = { flags: ['live', 'post-copy'], migrateUri: migrateUri() } as const;
  const migrating = domain.migrate(toB, { ...options, bandwidth: 5, postCopyBandwidth: 2 });
  const failed = expect(migrating).rejects.toBeInstanceOf(LibvirtError);
  await iterations.waitFor();
  await domain.startPostCopy();
  const there = await toB.domainByName(domain.name);
  await expect.poll(() => there.state()).toEqual({ state: 'running', reason: 'post-copy' });
  expect(await domain.state()).toEqual({ state: 'paused', reason: 'post-copy' });
  await domain.abortJob(['post-copy']);
  await failed;
  expect(await domain.state()).toEqual({ state: 'paused', reason: 'post-copy-failed' });
  const arrived = await domain.migrate(toB, {
    flags: ['live', 'post-copy', 'post-copy-resume'],
    migrateUri: migrateUri(),
    postCopyBandwidth: 1000,
  });
  expect(arrived).toMatchObject({ name: domain.name, uuid: domain.uuid });
  expect((await arrived.state()).state).toBe('running');
  await runsOn(b, domain.name);
  await iterations.close();
});

test('a daemon that dies is an error and a close event, and the next connection finds the domain', async () => {
  const domain = await startGuest();
  const mine = await a.connect();
  const closed = new Promise((resolve) => mine.once('close', resolve));
  const busy = (async () => {
    const own = await mine.domainByName(domain.name);
    for (;;) await own.state();
  })();
  const failed = expect(busy).rejects.toBeInstanceOf(LibvirtError);
  const migrating = domain.migrateToUri(b.uri, {
    flags: ['live', 'peer-to-peer'],
    migrateUri: migrateUri(),
    bandwidth: 1,
  });
  const broken = expect(migrating).rejects.toBeInstanceOf(LibvirtError);
  const iterations = await record(toA, 'migration-iteration');
  await expect.poll(async () => (await domain.jobInfo()).type).toBe('unbounded');
  await a.killDaemon();
  expect(['eof', 'error']).toContain(await within(10_000, () => 'the close event', closed));
  await Promise.all([failed, broken]);
  expect(mine.closed).toBe(true);
  await expect(mine.domains()).rejects.toBeInstanceOf(LibvirtError);
  await expect(domain.state()).rejects.toBeInstanceOf(LibvirtError);
  expect(await mine.close()).toBe(0);
  await iterations.close();
  await toA.close();
  await a.startDaemon();
  toA = await a.connect();
  expect((await toA.domainByName(domain.name)).uuid).toBe(domain.uuid);
});

test('a daemon that does not answer is given up when its keepalive is over', async () => {
  const keepAlive = { intervalSeconds: 1, count: 2 };
  const [mine, leaving] = await Promise.all([a.connect({ keepAlive }), a.connect({ keepAlive })]);
  await leaving.subscribe('lifecycle', () => {});
  const subscription = await mine.subscribe('lifecycle', () => {});
  const closed = new Promise((resolve) => mine.once('close', resolve));
  process.kill(a.daemonPid, 'SIGSTOP');
  try {
    // libvirt's own keepalive ends all but one of them never, and then the process.
    const waiting: Promise<unknown>[] = [];
    const asking = setInterval(() => waiting.push(mine.domains()), 100);
    const failed = expect(mine.domains()).rejects.toBeInstanceOf(LibvirtError);
    expect(await within(15_000, () => 'the close event', closed)).toBe('keepalive');
    clearInterval(asking);
    await failed;
    for (const { status } of await Promise.allSettled(waiting)) expect(status).toBe('rejected');
    await expect(mine.domains()).rejects.toBeInstanceOf(LibvirtError);
    await subscription.close();
    expect(await mine.close()).toBe(1);
    // One that is closed meanwhile is not waited for either.
    await within(15_000, () => 'the end of a connection', leaving.close());
  } finally {
    process.kill(a.daemonPid, 'SIGCONT');
  }
  expect(await toA.isAlive()).toBe(true);
});

test('a QEMU that does not answer holds up nobody but who asks it, and no connection from being closed', async () => {
  const { name, uuid } = await startGuest();
  const connection = await a.connect();
  const domain = await connection.domainByUuid(uuid);
  const qemu = Number(await readFile(join(a.dir, 'run/qemu', `${name}.pid`), 'utf8'));
  process.kill(qemu, 'SIGSTOP');
  try {
    const giveUp = new AbortController();
    const { signal } = giveUp;
    const asked = Array.from({ length: 4 }, () => domain.monitorCommand('query-status', {}, { signal }));
    expect((await connection.domains()).map((each) => each.uuid)).toContain(uuid);
    const reason = new Error('waited long enough');
    giveUp.abort(reason);
    for (const each of asked) await expect(each).rejects.toBe(reason);
    const blocked = await a.connect();
    const late = Array.from(
      { length: 4 },
      async () => await (await blocked.domainByUuid(uuid)).blockInfo('fda'),
    );
    const ended = Promise.allSettled(late);
    // Each has got its domain, and asks.
    await blocked.domainByUuid(uuid);
    expect(await within(10_000, () => 'the end of a connection', blocked.close())).toBeGreaterThan(0);
    process.kill(qemu, 'SIGCONT');
    await ended;
  } finally {
    process.kill(qemu, 'SIGCONT');
    await connection.close();
  }
});
