import { afterEach, describe, expect, it } from 'vitest';
import { destSettings, MigrationSettings, sourceSettings } from '../../../src/qemu/inspect/capabilities.ts';
import { QmpClient } from '../../../src/qemu/qmp/client.ts';
import { FakeMonitor } from '../support/qmp/fake-monitor.ts';
import { type StartOptions, TestQemu } from '../support/qmp/qemu.ts';

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const start = async (args: string[] = [], options: StartOptions = {}): Promise<QmpClient> => {
  const qemu = await TestQemu.start(['-m', '64', ...args], options);
  stops.push(() => qemu.stop());
  return qemu.client;
};

const snapshot = async (client: QmpClient): Promise<unknown> => [
  await client.execute('query-migrate-capabilities'),
  await client.execute('query-migrate-parameters'),
];

const setCapabilities = (client: QmpClient, states: Record<string, boolean>): Promise<unknown> =>
  client.execute('migrate-set-capabilities', {
    capabilities: Object.entries(states).map(([capability, state]) => ({ capability, state })),
  });

describe('the migration settings of a real QEMU', () => {
  it.each([true, false])(
    'become the wanted ones and go back to what the operator had (post-copy %s)',
    async (postcopy) => {
      const client = await start();
      await setCapabilities(client, {
        // One of the two: QEMU 9 and newer do not take both.
        [postcopy ? 'xbzrle' : 'multifd']: true,
        'auto-converge': true,
        'dirty-bitmaps': true,
      });
      await client.execute('migrate-set-parameters', {
        'tls-creds': 'tls0',
        'downtime-limit': 777,
        'max-bandwidth': 2 ** 33,
      });
      const newer = (await new MigrationSettings(client).readParameters()).has('zero-page-detection');
      if (newer) {
        await client.execute('migrate-set-parameters', {
          'avail-switchover-bandwidth': 2 ** 30,
          'zero-page-detection': 'none',
        });
      }
      const before = await snapshot(client);
      const settings = new MigrationSettings(client);
      await settings.apply(sourceSettings(postcopy));
      const on = [...(await settings.readCapabilities())].filter(([, state]) => state).map(([name]) => name);
      expect(on.sort()).toEqual(postcopy ? ['events', 'postcopy-ram'] : ['events']);
      const parameters = await settings.readParameters();
      expect(parameters.get('tls-creds')).toBe('');
      if (newer) {
        expect(parameters.get('avail-switchover-bandwidth')).toBe(0);
        expect(parameters.get('zero-page-detection')).toBe('legacy');
      }
      await settings.setParameters({ 'downtime-limit': 5, 'max-bandwidth': 12_345.6 });
      await settings.setParameters({ 'downtime-limit': 6 });
      expect((await settings.readParameters()).get('downtime-limit')).toBe(6);
      expect((await settings.readParameters()).get('max-bandwidth')).toBe(12_346);
      await settings.restore();
      expect(await snapshot(client)).toEqual(before);
      await client.execute('migrate-set-parameters', { 'downtime-limit': 888 });
      await settings.restore();
      expect((await settings.readParameters()).get('downtime-limit')).toBe(888);
    },
  );

  it('let the guest be slowed down later where that is wanted, and go back then', async () => {
    const client = await start();
    const before = await snapshot(client);
    const settings = new MigrationSettings(client);
    await settings.apply(sourceSettings(false, true), await settings.read());
    expect((await settings.readCapabilities()).get('auto-converge')).toBe(true);
    expect((await settings.readParameters()).get('max-cpu-throttle')).toBe(1);
    await settings.restore();
    expect(await snapshot(client)).toEqual(before);
  });

  it('are set for a destination, which leaves the disks to the source', async () => {
    const client = await start(['-incoming', 'defer']);
    const before = await snapshot(client);
    const settings = new MigrationSettings(client);
    await settings.apply(destSettings(true));
    const on = [...(await settings.readCapabilities())].filter(([, state]) => state).map(([name]) => name);
    expect(on.sort()).toEqual(['events', 'late-block-activate', 'postcopy-ram']);
    await settings.restore();
    expect(await snapshot(client)).toEqual(before);
  });

  it('are refused for post-copy where QEMU may not catch page faults, and nothing is left behind', async () => {
    // Root may always; nobody may not, unless the host allows it to all.
    const client = await start(['-incoming', 'defer'], { uid: 65534 });
    const before = await snapshot(client);
    const settings = new MigrationSettings(client);
    await expect(settings.apply(destSettings(true))).rejects.toMatchObject({
      code: 'E_NO_USERFAULTFD',
      remedy: expect.stringContaining('vm.unprivileged_userfaultfd=1'),
    });
    await settings.restore();
    expect(await snapshot(client)).toEqual(before);
    await settings.apply(destSettings(false));
  });

  it('cannot be had while it migrates', async () => {
    const client = await start();
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 1000 });
    await client.execute('cont');
    await client.execute('migrate', { uri: 'exec:cat >/dev/null' });
    const settings = new MigrationSettings(client);
    await expect(settings.apply(sourceSettings(false))).rejects.toMatchObject({ code: 'E_GUEST_BUSY' });
  });

  it('that no QEMU has are refused when they are asked for by name', async () => {
    const settings = new MigrationSettings(await start());
    await expect(settings.setParameters({ 'warp-factor': 9 })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
    });
    const warp = { capabilities: { warp: true }, parameters: {}, required: ['warp'] };
    await expect(settings.apply(warp)).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    await settings.apply({ ...warp, required: [] });
  });
});

describe('the migration settings of another QEMU', () => {
  const startFake = async (capabilities: Record<string, boolean>, parameters: object) => {
    const monitor = await FakeMonitor.start();
    stops.push(() => monitor.stop());
    const sent: [string, unknown][] = [];
    monitor.answer({
      'query-migrate-capabilities': () =>
        Object.entries(capabilities).map(([capability, state]) => ({ capability, state })),
      'query-migrate-parameters': () => parameters,
      'migrate-set-capabilities': (args) => {
        sent.push(['capabilities', args['capabilities']]);
        return {};
      },
      'migrate-set-parameters': (args) => {
        sent.push(['parameters', args]);
        return {};
      },
    });
    const client = await QmpClient.connect(monitor.path);
    stops.push(() => client.close());
    return { settings: new MigrationSettings(client), sent };
  };

  it('are asked only for what it knows and has otherwise, capabilities all at once', async () => {
    const { settings, sent } = await startFake(
      { events: true, 'postcopy-ram': false, multifd: true, 'mapped-ram': true, novel: true },
      {
        mode: 'cpr-reboot',
        'max-bandwidth': 1,
        'avail-switchover-bandwidth': 1e9,
        'zero-page-detection': 'none',
      },
    );
    await settings.apply(sourceSettings(true));
    expect(sent).toEqual([
      [
        'capabilities',
        expect.arrayContaining([
          { capability: 'postcopy-ram', state: true },
          { capability: 'multifd', state: false },
          { capability: 'mapped-ram', state: false },
        ]),
      ],
      ['parameters', { mode: 'normal', 'avail-switchover-bandwidth': 0, 'zero-page-detection': 'legacy' }],
    ]);
    expect(sent[0]![1]).toHaveLength(3);
  });

  it('are refused when a required one is not there', async () => {
    const { settings, sent } = await startFake({ events: false }, {});
    await expect(settings.apply(sourceSettings(true))).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('postcopy-ram'),
    });
    expect(sent).toEqual([]);
  });

  it('are put back within the numbers that JavaScript can hold', async () => {
    const { settings, sent } = await startFake({ events: true }, { 'max-bandwidth': 2 ** 63 });
    await settings.setParameters({ 'max-bandwidth': 5 });
    await settings.restore();
    expect(sent).toEqual([
      ['parameters', { 'max-bandwidth': 5 }],
      ['parameters', { 'max-bandwidth': Number.MAX_SAFE_INTEGER }],
    ]);
  });
});
