/** A destination that is given up, with a QEMU whose every answer the test decides on. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { bytes } from '@vmferry/engine/units';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { QemuDestGuest } from '../../src/qemu/dest-guest.ts';
import { FakeMonitor, nameOf } from './support/qmp/fake-monitor.ts';

let monitor: FakeMonitor;
let guest: QemuDestGuest;
let listening: Server | undefined;
let stream: Promise<Socket>;

beforeEach(async () => {
  monitor = await FakeMonitor.start();
  stream = new Promise((resolve) => {
    monitor.onRequest(async (request) => {
      const answer = (value: unknown): void => monitor.send({ return: value, id: request.id });
      switch (nameOf(request)) {
        case 'query-migrate-capabilities':
          return answer([{ capability: 'events', state: true }]);
        case 'migrate-incoming': {
          const path = String(request.arguments?.['uri']).replace('unix:', '');
          listening = createServer(resolve).listen(path);
          await once(listening, 'listening');
          return answer({});
        }
        case 'quit': {
          // As QEMU 11.1: nothing is answered before something of the stream has come, or its end.
          const socket = await stream;
          await Promise.race([once(socket, 'readable'), once(socket, 'close')]);
          monitor.socket?.destroy();
          return;
        }
        default:
          return answer({});
      }
    });
  });
  guest = await QemuDestGuest.connect(monitor.path);
  await guest.open({ postcopy: false, bufferBytes: bytes(1024) }, 'a-session');
});
afterEach(async () => {
  await guest.close();
  (await stream).destroy();
  listening?.close();
  await monitor.stop();
});

it('ends where nothing of the guest had been given to it', async () => {
  await guest.discard();
  expect((await guest.gone).code).toBe('E_GUEST_GONE');
});

it('is told to end, and not cut off, where something had', async () => {
  await guest.apply({ type: 'opaque', bytes: Buffer.from('QEVM') });
  await guest.discard();
  const socket = await stream;
  expect(socket.read()?.toString()).toBe('QEVM');
  expect(socket.readableEnded).toBe(false);
});

const asked = (): string[] => monitor.requests.map(nameOf);
const happens = (event: string, seconds: number): void =>
  monitor.send({ event, timestamp: { seconds, microseconds: 0 } });

it('stops a guest that somebody lets run before it was committed, and says so', async () => {
  expect([guest.remark, asked().filter((name) => name === 'stop')]).toEqual([undefined, ['stop']]);
  happens('RESUME', 5);
  await vi.waitFor(() => expect(asked().filter((name) => name === 'stop')).toHaveLength(2));
  expect(guest.remark).toMatch(/Somebody let the guest run on the destination .*before it was committed/);
});

it('has the time of a guest that somebody lets run faster than it', async () => {
  const running = guest.run({ paused: false });
  happens('RESUME', 7);
  expect(await running).toEqual({ atMs: 7000 });
  expect(guest.remark).toBeUndefined();
});

it('leaves a guest alone that an operator lets run who was called', async () => {
  guest.handOver();
  happens('RESUME', 5);
  await guest.settle();
  expect([guest.remark, asked().filter((name) => name === 'stop')]).toEqual([undefined, ['stop']]);
});
