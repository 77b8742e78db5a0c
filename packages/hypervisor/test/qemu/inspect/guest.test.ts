import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDescription } from '@vmferry/engine/description';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { destBlockers, sourceBlockers, standingBlockers } from '../../../src/qemu/inspect/blockers.ts';
import { compareForMigration } from '../../../src/qemu/inspect/compare.ts';
import { describeGuest } from '../../../src/qemu/inspect/guest.ts';
import { QmpClient } from '../../../src/qemu/qmp/client.ts';
import { FakeMonitor } from '../support/qmp/fake-monitor.ts';
import { TestQemu } from '../support/qmp/qemu.ts';

const started: TestQemu[] = [];
const start = async (...args: string[]): Promise<TestQemu> => {
  const qemu = await TestQemu.start(args);
  started.push(qemu);
  return qemu;
};
afterEach(async () => {
  for (const qemu of started.splice(0)) await qemu.stop();
});

const none = { postcopy: false };

describe('a real QEMU', () => {
  it('is described with all that a migration must know', async () => {
    const nics = [
      '-netdev',
      'user,id=n0',
      '-device',
      'virtio-net-pci,netdev=n0,id=net0,mac=52:54:00:11:22:33',
    ];
    const legacy = ['-nic', 'user,model=e1000,mac=52:54:00:11:22:34'];
    const memory = ['-m', '96', '-smp', '3', '-vga', 'std', ...nics, ...legacy];
    const { client } = await start('-machine', 'pc-i440fx-6.0', ...memory);
    const description = await describeGuest(client, 'qemu:test');
    const { major, minor, micro } = client.version;
    expect(description).toMatchObject({
      kind: 'qemu',
      name: 'qemu:test',
      hypervisorVersion: `QEMU ${major}.${minor}.${micro}`,
      machine: 'pc-i440fx-6.0',
      vcpus: 3,
      memoryBytes: 96 << 20,
      running: false,
    });
    expect(description.blocks).toContainEqual({ name: 'pc.ram', bytes: 96 << 20, hostPageBytes: 4096 });
    expect(description.blocks).toContainEqual({
      name: '0000:00:02.0/vga.vram',
      bytes: 16 << 20,
      hostPageBytes: 4096,
    });
    expect(description.blocks.map(({ name }) => name)).toContain('/rom@etc/acpi/tables');
    expect(description.nics).toEqual([
      { name: 'e1000.0', mac: '52:54:00:11:22:34', addresses: [] },
      { name: 'net0', mac: '52:54:00:11:22:33', addresses: [] },
    ]);
    await client.execute('cont');
    expect(await describeGuest(client, '')).toMatchObject({ running: true });
    expect(await sourceBlockers(client, { postcopy: true })).toEqual([]);
  });

  it('tells its taps, behind a hub too', async () => {
    const [direct, hubbed] = [`vmf${process.pid}a`, `vmf${process.pid}b`];
    const tap = (id: string, name: string): string => `tap,id=${id},ifname=${name},script=no,downscript=no`;
    const plain = ['-netdev', tap('t0', direct), '-device', 'virtio-net-pci,netdev=t0,id=net0'];
    const uplink = ['-netdev', tap('t1', hubbed), '-netdev', 'hubport,id=h1,hubid=0,netdev=t1'];
    const behind = ['-netdev', 'hubport,id=h0,hubid=0', '-device', 'e1000,netdev=h0,id=net1'];
    const { client } = await start('-m', '64', ...plain, ...uplink, ...behind);
    const { nics } = await describeGuest(client, '');
    const taps = nics.map(({ name, hostInterface }) => [name, hostInterface]).sort();
    expect(taps).toEqual([
      ['net0', direct],
      ['net1', hubbed],
    ]);
  });

  it('is not taken for another one that has its memory in the same file', async () => {
    const dir = await mkdtemp('/dev/shm/vmferry-memory-');
    const sharing = (share: string, file: string): string[] => [
      ...['-m', '64', '-machine', 'pc,memory-backend=m0', '-object'],
      `memory-backend-file,id=m0,size=64M,share=${share},mem-path=${join(dir, file)}`,
    ];
    const told = async (share: string, file: string) =>
      describeGuest((await start(...sharing(share, file))).client, '');
    const [one, same, own, copy] = [
      await told('on', 'one'),
      await told('on', 'one'),
      await told('on', 'own'),
      await told('off', 'one'),
    ];
    await rm(dir, { recursive: true });
    const [reason, ...others] = compareForMigration(one, same, none);
    expect(reason).toMatchObject({
      code: 'E_GUEST_MISMATCH',
      message: expect.stringMatching(
        /m0 of the destination and \S*m0 of the source are the same memory: .*one/,
      ),
    });
    expect([
      ...others,
      ...compareForMigration(one, own, none),
      ...compareForMigration(one, copy, none),
    ]).toEqual([]);
    expect(parseDescription(structuredClone(one)).sharedMemory).toEqual(one.sharedMemory);
  });

  it('counts memory that was plugged in', async () => {
    const { client } = await start('-m', '64,slots=1,maxmem=256M');
    await client.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm0', size: 128 << 20 });
    await client.execute('device_add', { driver: 'pc-dimm', id: 'd0', memdev: 'm0' });
    const description = await describeGuest(client, '');
    expect(description.memoryBytes).toBe(192 << 20);
    expect(description.blocks).toContainEqual({ name: 'm0', bytes: 128 << 20, hostPageBytes: 4096 });
  });

  it('and its counterpart that waits for it are equal', async () => {
    const args = ['-m', '64', '-nic', 'user,model=virtio-net-pci,mac=52:54:00:11:22:33'];
    const [source, dest] = [await start(...args), await start(...args, '-incoming', 'defer')];
    const descriptions = [
      await describeGuest(source.client, 's'),
      await describeGuest(dest.client, 'd'),
    ] as const;
    expect(compareForMigration(...descriptions, { postcopy: true })).toEqual([]);
    expect(await destBlockers(dest.client)).toEqual([]);
    expect(await destBlockers(source.client)).toMatchObject([
      { code: 'E_NOT_INCOMING', message: expect.stringMatching(/does not wait for a migration/) },
    ]);
    expect(await sourceBlockers(dest.client, none)).toMatchObject([
      { code: 'E_GUEST_BUSY', message: expect.stringContaining('"inmigrate"') },
    ]);
  });

  it('is not taken in by one that listens already', async () => {
    const { client } = await start('-m', '64', '-incoming', 'defer');
    expect(await destBlockers(client)).toEqual([]);
    await client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    expect(await destBlockers(client)).toMatchObject([
      { code: 'E_NOT_INCOMING', message: expect.stringMatching(/listens or loads already/) },
    ]);
  });

  it('that another machine waits for differs in what they are made of', async () => {
    const source = await start('-m', '64');
    const dest = await start('-machine', 'q35', '-m', '128', '-smp', '2', '-incoming', 'defer');
    const [here, there] = [await describeGuest(source.client, 's'), await describeGuest(dest.client, 'd')];
    const messages = compareForMigration(here, there, none).map(({ message }) => message);
    expect(messages.filter((text) => / differs: /.test(text))).toEqual([
      expect.stringContaining('machine type'),
      'the number of vCPUs differs: 1 on the source, 2 on the destination',
      'the memory size differs: 64 MiB on the source, 128 MiB on the destination',
      'the size of RAM block pc.ram differs: 64 MiB on the source, 128 MiB on the destination',
    ]);
  });

  it('finds a CPU that has less', async () => {
    const source = await start('-cpu', 'max');
    const dest = await start('-cpu', 'qemu64');
    const [here, there] = [await describeGuest(source.client, 's'), await describeGuest(dest.client, 'd')];
    expect(compareForMigration(here, there, none).map(({ message }) => message)).toEqual([
      expect.stringMatching(/CPU \(qemu64\) lacks features that the source's \(max\) has: .*7h\.0:EBX/),
    ]);
    expect(compareForMigration(there, here, none)).toEqual([]);
  });

  it('names every device that cannot be migrated', async () => {
    const shared = [
      '-object',
      'memory-backend-ram,id=hm,size=16M',
      '-device',
      'ivshmem-plain,memdev=hm,master=off',
    ];
    const { client } = await start('-m', '64', '-device', 'rocker', ...shared);
    const errors = await sourceBlockers(client, none);
    expect(errors.map(({ code }) => code)).toEqual(['E_GUEST_BLOCKED', 'E_GUEST_BLOCKED']);
    expect(errors.map(({ message }) => message).join()).toMatch(/rocker/);
    expect(errors.map(({ message }) => message).join()).toMatch(/ivshmem/);
    expect(await standingBlockers(client)).toEqual(errors);
  });

  it('is busy while it migrates, and gone when it has', async () => {
    const { client } = await start('-m', '64');
    const completed = client.waitForEvent('MIGRATION', ({ data }) => data['status'] === 'completed', {
      timeoutMs: 10_000,
    });
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 1000 });
    const active = client.waitForEvent('MIGRATION', ({ data }) => data['status'] === 'active');
    await client.execute('cont');
    await client.execute('migrate', { uri: 'exec:cat >/dev/null' });
    await active;
    expect(await sourceBlockers(client, none)).toMatchObject([
      { code: 'E_GUEST_BUSY', message: expect.stringContaining('under way') },
    ]);
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 1e12 });
    await completed;
    // QEMU says that it has completed a moment before its run state follows.
    await expect
      .poll(async () => (await sourceBlockers(client, none)).map(({ message }) => message), { timeout: 5000 })
      .toEqual([expect.stringContaining('"postmigrate"')]);
  });
});

describe('a QEMU as it might be', () => {
  let monitor: FakeMonitor;
  let client: QmpClient;
  beforeEach(async () => {
    monitor = await FakeMonitor.start();
    client = await QmpClient.connect(monitor.path);
  });
  afterEach(async () => {
    await client.close();
    await monitor.stop();
  });

  const answer = (status: string, migration: object, pageSize = '4 KiB'): void => {
    const header = 'Block Name PSize Offset Used Total HVA RO';
    const row = `pc.ram ${pageSize}  0x0 0x40000000 0x40000000 0x1 rw`;
    monitor.answer({
      'query-status': () => ({ status, running: status === 'running' }),
      'query-migrate': () => migration,
      'human-monitor-command': () => `${header}\r\n${row}\r\n`,
    });
  };

  it.each([
    ['running', []],
    ['paused', []],
    ['prelaunch', []],
    ['internal-error', ['E_GUEST_BLOCKED']],
    ['shutdown', ['E_GUEST_BLOCKED']],
    ['io-error', ['E_GUEST_BLOCKED']],
    ['save-vm', ['E_GUEST_BUSY']],
    ['some-day', ['E_GUEST_BLOCKED']],
  ])('in run state %s is blocked by %j', async (status, codes) => {
    answer(status, {});
    expect((await sourceBlockers(client, none)).map(({ code }) => code)).toEqual(codes);
  });

  it.each([
    ['running', []],
    ['suspended', ['E_GUEST_BLOCKED']],
    ['guest-panicked', ['E_GUEST_BLOCKED']],
    // Its storage may be in order on the other host, and what becomes of migrations others know.
    ['io-error', []],
    ['postmigrate', []],
  ])('in run state %s has %j against it whoever migrates it', async (status, codes) => {
    answer(status, { status: 'active' });
    expect((await standingBlockers(client)).map(({ code }) => code)).toEqual(codes);
  });

  it('may have failed at an earlier migration', async () => {
    for (const status of ['none', 'failed', 'cancelled', 'completed']) {
      answer('running', { status });
      expect(await sourceBlockers(client, none)).toEqual([]);
    }
    for (const status of ['setup', 'active', 'cancelling', 'postcopy-paused', 'wait-unplug']) {
      answer('running', { status });
      expect(await sourceBlockers(client, none)).toMatchObject([{ code: 'E_GUEST_BUSY' }]);
    }
  });

  it('cannot be moved by post-copy with pages of a gigabyte, and can by pre-copy', async () => {
    answer('running', {}, '1 GiB');
    expect(await sourceBlockers(client, none)).toEqual([]);
    expect(await sourceBlockers(client, { postcopy: true })).toMatchObject([
      { code: 'E_GUEST_BLOCKED', message: expect.stringContaining('pc.ram') },
    ]);
    answer('running', {}, '2 MiB');
    expect(await sourceBlockers(client, { postcopy: true })).toEqual([]);
  });

  it('that does not answer is reported as a fault of the guest', async () => {
    monitor.onRequest(() => monitor.socket!.destroy());
    await expect(describeGuest(client, '')).rejects.toMatchObject({
      name: 'GuestError',
      code: 'E_GUEST_GONE',
    });
    await expect(sourceBlockers(client, none)).rejects.toMatchObject({ name: 'GuestError' });
    await expect(destBlockers(client)).rejects.toMatchObject({ name: 'GuestError' });
  });
});
