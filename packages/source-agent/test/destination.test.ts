/** The source's connections, against a destination agent of which only the handshake is there. */
import { randomBytes } from 'node:crypto';
import { defaultLimits } from '@vmferry/agent-core/config';
import { ControlChannel } from '@vmferry/wire/control';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import { newSession } from '@vmferry/wire/handshake';
import { Link } from '@vmferry/wire/link';
import { Listener } from '@vmferry/wire/listener';
import { type AgentPath, DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, expect, test } from 'vitest';
import { Destination } from '../src/destination.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

interface Peer {
  readonly url: string;
  /** The path on which each stream came, in their order, by role. */
  readonly attached: [path: string, role: string][];
}

async function startPeer(
  paths: readonly AgentPath[],
  limits = { maxFrameBytes: 1 << 20, windowBytes: 8 << 20 },
): Promise<Peer> {
  const attached: [string, string][] = [];
  const accept = (socket: FrameSocket, { path }: { readonly path: string }): void => {
    const control = new ControlChannel(
      new Link(socket, { name: 'peer', onFrame: (frame, link) => link.consumed(frame) }),
    );
    control.onMessage = (message) => {
      if (message.type === 'clock') control.send({ type: 'clock-reply', t0: message.t0, t1: 1, t2: 1 });
    };
    control.expect(['hello', 'attach'], 5000).then(
      (message) => {
        if (message.type === 'attach') {
          attached.push([path, message.stream.role]);
          control.send({ type: 'attached', received: 0 });
          return;
        }
        const common = { version: 1, features: [], agent: 'old', ...newSession(randomBytes) };
        control.send({ type: 'welcome', ...common, limits, wallClockMs: 1 });
      },
      () => {},
    );
  };
  const handlers = Object.fromEntries(paths.map((path) => [path, accept]));
  const listener = await Listener.listen('ws://127.0.0.1:0', { handlers });
  cleanups.push(() => listener.close());
  return { url: listener.url, attached };
}

async function connected({ url }: Peer): Promise<Destination> {
  const destination = await Destination.connect({
    url,
    insecure: false,
    limits: defaultLimits(),
    maxBandwidth: 0,
  });
  cleanups.push(() => destination.close());
  await destination.attach(2);
  return destination;
}

test('data streams have a path of their own', async () => {
  const peer = await startPeer([MIGRATION_PATH, DATA_PATH]);
  await connected(peer);
  expect(peer.attached.toSorted()).toEqual([
    [DATA_PATH, 'data'],
    [DATA_PATH, 'data'],
    [MIGRATION_PATH, 'express'],
  ]);
});

test('an agent of before that path takes them where it takes all streams', async () => {
  const peer = await startPeer([MIGRATION_PATH]);
  const { data } = await connected(peer);
  expect(data.map(({ state }) => state)).toEqual(['open', 'open']);
  expect(peer.attached.filter(([, role]) => role === 'data')).toEqual([
    [MIGRATION_PATH, 'data'],
    [MIGRATION_PATH, 'data'],
  ]);
});

test('no stream has more in flight, or a bigger frame, than the destination said it takes', async () => {
  const limits = { maxFrameBytes: 64 * 1024, windowBytes: 96 * 1024 };
  const { control, data, express } = await connected(await startPeer([MIGRATION_PATH, DATA_PATH], limits));
  for (const link of [control.link, express, ...data]) {
    expect(link.window).toBeLessThanOrEqual(limits.windowBytes);
    const buffer = Buffer.alloc(limits.maxFrameBytes + 1);
    const frame = {
      kind: 2,
      flags: 0,
      codec: 0,
      epoch: 0,
      round: 0,
      block: 0,
      count: 0,
      rawBytes: 0,
    } as const;
    await expect(link.send({ ...frame, payloadHash: { hi: 0, lo: 0 }, buffer })).rejects.toMatchObject({
      code: 'E_LIMIT',
    });
  }
});
