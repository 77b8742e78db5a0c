/** Whose a STOP was, as QEMU's answers tell. */
import type { GuestError } from '@vmferry/engine/errors';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../src/qemu/qmp/client.ts';
import { RunStateWatch } from '../../src/qemu/run-state.ts';
import { FakeMonitor, nameOf, type Request } from './support/qmp/fake-monitor.ts';

let monitor: FakeMonitor;
let client: QmpClient;
let watch: RunStateWatch;
const told: string[] = [];
/** Questions that QEMU has not answered. */
const asked: Request[] = [];

beforeEach(async () => {
  told.length = 0;
  asked.length = 0;
  monitor = await FakeMonitor.start();
  monitor.onRequest((request) => {
    if (nameOf(request) === 'query-status') asked.push(request);
    else monitor.send({ return: {}, id: request.id });
  });
  client = await QmpClient.connect(monitor.path);
  watch = new RunStateWatch(client, {
    stopped: (atMs) => told.push(`stopped at ${atMs}`),
    changed: (running) => told.push(running ? 'runs' : 'stands'),
    ended: (error: GuestError) => told.push(error.code),
  });
  watch.found(true);
});
afterEach(async () => {
  watch.close();
  await client.close();
  await monitor.stop();
});

/** Resolves when the client has taken it. */
async function happens(event: 'STOP' | 'RESUME'): Promise<void> {
  const taken = client.waitForEvent(event);
  monitor.send({ event, timestamp: { seconds: 7, microseconds: 0 } });
  await taken;
}

async function answer(status: string): Promise<void> {
  await expect.poll(() => asked.length).toBeGreaterThan(0);
  const { id } = asked.shift()!;
  monitor.send({ return: { status, running: status === 'running', singlestep: false }, id });
  // Answered behind it.
  await client.execute('query-name');
}

describe('a guest that stops while it is moved', () => {
  it.each(['finish-migrate', 'postmigrate'])(
    'was stopped by the migration where QEMU says %s',
    async (status) => {
      await happens('STOP');
      expect(told).toEqual([]);
      await answer(status);
      expect(told).toEqual(['stopped at 7000']);
      expect(await watch.settled()).toMatchObject({ running: true });
    },
  );

  it('was stopped by the migration where a pass begins before QEMU answers anybody', async () => {
    await happens('STOP');
    watch.passBegan();
    expect(told).toEqual(['stopped at 7000']);
    watch.passBegan();
    await answer('finish-migrate');
    expect(told).toEqual(['stopped at 7000']);
    expect(await watch.settled()).toMatchObject({ running: true });
  });

  it.each(['paused', 'io-error', 'watchdog'])(
    'was stopped by somebody where it is "%s", and that is how it stands',
    async (status) => {
      await happens('STOP');
      await answer(status);
      watch.passBegan();
      expect(told).toEqual(['stands']);
      expect(await watch.settled()).toEqual({ running: false, word: status });
    },
  );

  it.each(['shutdown', 'guest-panicked', 'internal-error'])(
    'has come to its end where it is "%s"',
    async (status) => {
      await happens('STOP');
      await answer(status);
      expect(told).toEqual(['stands', 'E_GUEST_GONE']);
    },
  );

  it('and is let go on before QEMU answers runs, whatever the answer was', async () => {
    await happens('STOP');
    await happens('RESUME');
    await answer('paused');
    expect(told).toEqual([]);
    expect(await watch.settled()).toMatchObject({ running: true });
  });

  it('runs again when it is let go on', async () => {
    await happens('STOP');
    await answer('paused');
    await happens('RESUME');
    expect(told).toEqual(['stands', 'runs']);
    expect(await watch.settled()).toMatchObject({ running: true });
  });

  it('is not known to run or to stand when QEMU ends before it answers', async () => {
    await happens('STOP');
    monitor.socket!.destroy();
    await expect(watch.settled()).rejects.toMatchObject({ code: 'E_QMP_CLOSED' });
  });
});
