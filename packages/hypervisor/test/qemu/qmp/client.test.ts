import { once } from 'node:events';
import { setImmediate as immediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../src/qemu/qmp/client.ts';
import type { QmpEvent } from '../../../src/qemu/qmp/message.ts';
import { FakeMonitor, nameOf, type Request } from '../support/qmp/fake-monitor.ts';

const stamp = { seconds: 1_700_000_000, microseconds: 123_456 };

let monitor: FakeMonitor;
let client: QmpClient;

beforeEach(async () => {
  monitor = await FakeMonitor.start();
  client = await QmpClient.connect(monitor.path, { commandTimeoutMs: 2000 });
});

afterEach(async () => {
  await client.close();
  await monitor.stop();
});

/** Resolves with the first `count` commands. */
const arrived = (count: number): Promise<Request[]> =>
  new Promise((resolve) => {
    const requests: Request[] = [];
    monitor.onRequest((request) => {
      requests.push(request);
      if (requests.length === count) resolve(requests);
    });
  });

describe('commands', () => {
  it('learns the version and agrees on out-of-band commands', () => {
    expect(client.version).toEqual({ major: 7, minor: 2, micro: 22, package: 'fake' });
    expect(client.oob).toBe(true);
    expect(monitor.requests[0]).toMatchObject({
      execute: 'qmp_capabilities',
      arguments: { enable: ['oob'] },
    });
  });

  it('matches answers to commands in whatever order they come', async () => {
    const order = fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6], { minLength: 7 });
    await fc.assert(
      fc.asyncProperty(order, async (order) => {
        const all = arrived(order.length);
        const answers = order.map((_, n) => client.execute('echo', { n }));
        const requests = await all;
        for (const at of order) monitor.send({ return: requests[at]!.arguments, id: requests[at]!.id });
        expect(await Promise.all(answers)).toEqual(order.map((_, n) => ({ n })));
      }),
      { numRuns: 50 },
    );
  });

  it('reads messages cut at any byte, within characters too', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme', maxLength: 12 }), { minLength: 1, maxLength: 6 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
        async (texts, sizes) => {
          const all = arrived(texts.length);
          const answers = texts.map((text) => client.execute('echo', { text }));
          const requests = await all;
          const bytes = Buffer.from(
            requests
              .map(({ id, arguments: args }) => `${JSON.stringify({ return: args?.['text'], id })}\r\n`)
              .join(''),
          );
          for (let at = 0; at < bytes.length; ) {
            const size = sizes.next().value;
            monitor.write(bytes.subarray(at, at + size));
            // The client reads in between, so that a chunk is what it gets.
            await immediate();
            at += size;
          }
          expect(await Promise.all(answers)).toEqual(texts);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('reports what QEMU refuses, with its class', async () => {
    monitor.answer({});
    await expect(client.execute('frobnicate')).rejects.toMatchObject({
      code: 'E_QMP_COMMAND',
      class: 'CommandNotFound',
      command: 'frobnicate',
      message: expect.stringContaining('has not been found'),
    });
  });

  it('leaves room for out-of-band commands in the queue of QEMU', async () => {
    const seven = arrived(7);
    const slow = Array.from({ length: 9 }, (_, n) => client.execute('slow', { n }));
    const requests = await seven;
    const urgent = new Promise<Request>((resolve) => monitor.onRequest(resolve));
    const pause = client.execute('migrate-pause', undefined, { oob: true });
    const request = await urgent;
    expect(request['exec-oob']).toBe('migrate-pause');
    monitor.send({ return: {}, id: request.id });
    expect(await pause).toEqual({});
    monitor.onRequest(({ id }) => monitor.send({ return: 'late', id }));
    for (const { id } of requests) monitor.send({ return: 'early', id });
    expect(await Promise.all(slow)).toEqual([...Array(7).fill('early'), 'late', 'late']);
  });

  it('gives a command up after its time and ignores the answer that comes later', async () => {
    const one = arrived(1);
    await expect(client.execute('slow', {}, { timeoutMs: 30 })).rejects.toMatchObject({
      code: 'E_QMP_TIMEOUT',
      message: 'QEMU did not answer slow within 30 ms',
    });
    const [request] = await one;
    monitor.send({ return: 'late', id: request!.id });
    monitor.answer({ next: () => 'ok' });
    expect(await client.execute('next')).toBe('ok');
  });

  it('does not send a command whose time passed while it waited for its turn', async () => {
    const seven = arrived(7);
    const slow = Array.from({ length: 7 }, () => client.execute('slow'));
    const requests = await seven;
    await expect(client.execute('quit', {}, { timeoutMs: 30 })).rejects.toThrow('was not sent within 30 ms');
    for (const { id } of requests) monitor.send({ return: 1, id });
    await Promise.all(slow);
    monitor.answer({ next: () => 'ok' });
    await client.execute('next');
    expect(monitor.requests.map(nameOf)).not.toContain('quit');
  });

  it('ignores an answer that was meant for the client before it', async () => {
    const one = arrived(1);
    const answer = client.execute('ask');
    const [request] = await one;
    monitor.send({ return: 'wrong', id: 'libvirt-42' });
    monitor.send({ return: 'right', id: request!.id });
    expect(await answer).toBe('right');
  });

  it('gives an error without an id to the only command in flight', async () => {
    const one = arrived(1);
    const answer = client.execute('ask');
    await one;
    monitor.send({ error: { class: 'GenericError', desc: 'JSON parse error' } });
    await expect(answer).rejects.toMatchObject({ code: 'E_QMP_COMMAND', command: 'ask' });
  });
});

describe('events', () => {
  const pass = (n: number): unknown => ({ event: 'MIGRATION_PASS', data: { pass: n }, timestamp: stamp });

  it('reach subscribers by name and by star until they unsubscribe, with the stamp of QEMU', async () => {
    const named: QmpEvent[] = [];
    const all: QmpEvent[] = [];
    const stop = client.on('MIGRATION_PASS', (event) => named.push(event));
    client.on('*', (event) => all.push(event));
    const second = client.waitForEvent('MIGRATION_PASS', ({ data }) => data['pass'] === 2);
    monitor.send(pass(1));
    monitor.send({ event: 'STOP', timestamp: stamp });
    monitor.send(pass(2));
    expect(await second).toEqual({ name: 'MIGRATION_PASS', data: { pass: 2 }, atMs: 1_700_000_000_123.456 });
    stop();
    const third = client.waitForEvent('MIGRATION_PASS');
    monitor.send(pass(3));
    await third;
    expect(named.map(({ data }) => data['pass'])).toEqual([1, 2]);
    expect(all.map(({ name }) => name)).toEqual([
      'MIGRATION_PASS',
      'STOP',
      'MIGRATION_PASS',
      'MIGRATION_PASS',
    ]);
    expect(all[1]!.data).toEqual({});
  });

  it('that do not come end the wait with a timeout, the signal of the caller or the end of the monitor', async () => {
    await expect(client.waitForEvent('STOP', undefined, { timeoutMs: 20 })).rejects.toMatchObject({
      code: 'E_QMP_TIMEOUT',
      message: 'no STOP event within 20 ms',
    });
    const abort = new AbortController();
    const aborted = client.waitForEvent('STOP', undefined, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    await expect(client.waitForEvent('STOP', undefined, { signal: abort.signal })).rejects.toThrow('enough');
    const orphaned = client.waitForEvent('STOP');
    monitor.socket!.destroy();
    await expect(orphaned).rejects.toMatchObject({ code: 'E_QMP_CLOSED' });
  });

  it('whose subscriber fails end the connection with that failure', async () => {
    client.on('STOP', () => {
      throw new Error('a defect');
    });
    monitor.send({ event: 'STOP', timestamp: stamp });
    expect(await client.closed).toMatchObject({
      code: 'E_QMP_LISTENER',
      message: expect.stringContaining('a defect'),
    });
  });
});

describe('the end', () => {
  it('of a monitor rejects every waiting command and names them', async () => {
    const two = arrived(2);
    const answers = [client.execute('query-migrate'), client.execute('stop')];
    await two;
    monitor.socket!.destroy();
    for (const answer of answers) {
      await expect(answer).rejects.toMatchObject({ code: 'E_QMP_CLOSED', command: 'query-migrate, stop' });
    }
    expect(await client.closed).toMatchObject({ code: 'E_QMP_CLOSED' });
    await expect(client.execute('cont')).rejects.toMatchObject({ code: 'E_QMP_CLOSED', command: 'cont' });
    await expect(client.waitForEvent('STOP')).rejects.toMatchObject({ code: 'E_QMP_CLOSED' });
  });

  it('by our own hand can come twice, and frees the monitor', async () => {
    const freed = once(monitor.socket!, 'close');
    await Promise.all([client.close(), client.close()]);
    await client.close();
    await freed;
    expect(await client.closed).toMatchObject({ code: 'E_QMP_CLOSED' });
  });

  it.each([
    ['what is not JSON', 'garbage\n'],
    ['what is not an object', '42\n'],
    ['an object that QMP does not have', '{"hello":1}\n'],
    ['an event without a stamp', '{"event":"STOP"}\n'],
    ['an answer to nobody', '{"return":{}}\n'],
  ])('comes with a clear error when the monitor sends %s', async (_, line) => {
    monitor.write(line);
    expect(await client.closed).toMatchObject({
      code: 'E_QMP_PROTOCOL',
      message: expect.stringContaining(monitor.path),
    });
  });

  it('comes when a message is longer than the limit', async () => {
    await client.close();
    client = await QmpClient.connect(monitor.path, { maxLineBytes: 4096 });
    const answer = client.execute('ask');
    monitor.write('x'.repeat(5000));
    await expect(answer).rejects.toMatchObject({ code: 'E_QMP_CLOSED' });
    expect(await client.closed).toMatchObject({ code: 'E_QMP_TOO_LONG' });
  });
});
