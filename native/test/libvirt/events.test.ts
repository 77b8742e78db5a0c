import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { DomainEvents } from '@vmferry/native/libvirt/events';
import { expect, test, vi } from 'vitest';
import { connect, domainXml, runRaw, testUri } from './support.ts';

test('lifecycle events come in order, with what happened and why', async () => {
  const connection = await connect();
  const events: string[] = [];
  let seen = () => {};
  const all = new Promise<void>((resolve) => {
    seen = resolve;
  });
  await connection.subscribe('lifecycle', ({ domain, event, detail }) => {
    events.push(`${domain.name} ${event} ${detail}`);
    if (event === 'undefined') seen();
  });
  const domain = await connection.define(domainXml('life'));
  await domain.create();
  await domain.suspend();
  await domain.resume();
  await domain.destroy();
  await domain.undefine();
  await all;
  expect(events).toEqual([
    'life defined added',
    'life started booted',
    'life suspended paused',
    'life resumed unpaused',
    'life stopped destroyed',
    'life undefined removed',
  ]);
});

test('a subscription can be for one domain, and none comes once it is closed', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  const other = await connection.createTransient(domainXml('other'));
  const mine = vi.fn<(event: DomainEvents['lifecycle']) => void>();
  const all = vi.fn();
  const subscription = await connection.subscribe('lifecycle', mine, one);
  await connection.subscribe('lifecycle', all);
  await other.suspend();
  await one.suspend();
  await vi.waitFor(() => expect(all).toHaveBeenCalledTimes(2));
  expect(mine.mock.calls.map(([{ domain }]) => domain.name)).toEqual(['one']);
  await Promise.all([subscription.close(), subscription.close()]);
  await one.resume();
  await vi.waitFor(() => expect(all).toHaveBeenCalledTimes(3));
  expect(mine).toHaveBeenCalledTimes(1);
});

test('any number of listeners hear of the same, until each has enough', async () => {
  const connection = await connect();
  const [one, again] = [await connection.domainByName('one'), await connection.domainByName('one')];
  const heard: string[] = [];
  const listen = (name: string) => (event: { readonly event: string }) =>
    heard.push(`${name} ${event.event}`);
  const same = listen('same');
  const [first, second, third] = await Promise.all([
    connection.subscribe('lifecycle', same, one),
    connection.subscribe('lifecycle', same, again),
    connection.subscribe('lifecycle', listen('other'), one),
  ]);
  await connection.subscribe('lifecycle', listen('all'));
  await one.suspend();
  await vi.waitFor(() => expect(heard).toHaveLength(4));
  expect(heard.toSorted()).toEqual(['all suspended', 'other suspended', 'same suspended', 'same suspended']);
  await first.close();
  await second.close();
  heard.length = 0;
  await one.resume();
  await vi.waitFor(() => expect(heard.toSorted()).toEqual(['all resumed', 'other resumed']));
  // The last goes while another comes.
  const [, late] = await Promise.all([third.close(), connection.subscribe('lifecycle', listen('late'), one)]);
  heard.length = 0;
  await one.suspend();
  await vi.waitFor(() => expect(heard.toSorted()).toEqual(['all suspended', 'late suspended']));
  await late.close();
  expect(await connection.close()).toBe(0);
});

test('what one listener throws keeps the event from no other', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  const thrown = new Promise<unknown>((resolve) => process.once('uncaughtException', resolve));
  const others = process.rawListeners('uncaughtException').filter((each) => !('listener' in each));
  for (const each of others) process.off('uncaughtException', each as () => void);
  try {
    await connection.subscribe('lifecycle', () => {
      throw new Error('from the listener');
    });
    const heard = new Promise<string>((resolve) => {
      void connection.subscribe('lifecycle', ({ event }) => resolve(event)).then(() => one.suspend());
    });
    expect(await heard).toBe('suspended');
    expect(await thrown).toMatchObject({ message: 'from the listener' });
  } finally {
    for (const each of others) process.on('uncaughtException', each as () => void);
  }
});

test('closing in the listener is fine', async () => {
  const connection = await connect();
  const one = await connection.domainByName('one');
  const closed = new Promise<number>((resolve) => {
    connection.subscribe('lifecycle', () => resolve(connection.close())).then(() => one.suspend());
  });
  // The call that made the event may still be under way.
  expect(await closed).toBeLessThanOrEqual(1);
});

test('a domain and a subscription keep their connection from being collected', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const seen: string[] = [];
  const uri = testUri();
  const held = async () => {
    const [domain] = await (await LibvirtConnection.open(uri)).domains();
    return domain!;
  };
  const subscribed = async () => {
    const connection = await LibvirtConnection.open('test:///default');
    await connection.subscribe('lifecycle', ({ event, domain }) => seen.push(`${domain.name} ${event}`));
  };
  const domain = await held();
  await subscribed();
  for (let i = 0; i < 5; i++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await domain.state()).state).toBe('running');
  const other = await connect('test:///default');
  await (await other.createTransient(domainXml('noticed'))).destroy();
  await vi.waitFor(() => expect(seen).toEqual(['noticed started', 'noticed stopped']));
});

test('every event that there is can be waited for', async () => {
  const connection = await connect();
  for (const event of [
    'lifecycle',
    'job-completed',
    'migration-iteration',
    'device-removed',
    'device-removal-failed',
    'agent',
  ] as const) {
    await (await connection.subscribe(event, () => {})).close();
  }
  await expect(connection.subscribe('weather' as never, () => {})).rejects.toMatchObject({
    code: 'E_NATIVE_BOUNDS',
  });
  await expect(connection.subscribeMonitor(undefined, () => {})).rejects.toMatchObject({
    code: 'VIR_ERR_NO_SUPPORT',
  });
  expect(await connection.close()).toBe(0);
});

test('a subscription keeps the process running, an open connection does not', () => {
  const script = (subscribe: string) => `
    (async () => {
      const c = await open('test:///default');
      ${subscribe}
      setTimeout(() => console.log('still there'), 50).unref();
    })();
  `;
  expect(runRaw(script(''))).toEqual({ stdout: '', stderr: '', status: 0, signal: null });
  const waiting = `
    await call('subscribe', c, 0, undefined, ({ event }) => { console.log('event', event); call('close', c); });
    const d = await call('lookupByName', c, 'test');
    setTimeout(() => call('suspend', d.handle), 100).unref();
  `;
  expect(runRaw(script(waiting))).toEqual({
    stdout: 'still there\nevent 3\n',
    stderr: '',
    status: 0,
    signal: null,
  });
});

test('a subscription that was refused does not keep the process running', () => {
  const result = runRaw(`
    (async () => {
      const c = await open('test:///default');
      await call('subscribeMonitor', c, undefined, 0, undefined, () => {}).catch(() => console.log('refused'));
    })();
  `);
  expect(result).toEqual({ stdout: 'refused\n', stderr: '', status: 0, signal: null });
});

test('what a listener throws is an uncaught exception, and the next event comes all the same', () => {
  const result = runRaw(`
    process.on('uncaughtException', (error) => console.log(error.message));
    (async () => {
      const c = await open('test:///default');
      await call('subscribe', c, 0, undefined, ({ event }) => {
        if (event === 4) call('close', c);
        throw new Error('from the listener ' + event);
      });
      const d = await call('lookupByName', c, 'test');
      await call('suspend', d.handle);
      await call('resume', d.handle);
    })();
  `);
  expect(result).toMatchObject({ stdout: 'from the listener 3\nfrom the listener 4\n', status: 0 });
});
