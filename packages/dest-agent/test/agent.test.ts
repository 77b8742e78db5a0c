import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { ControlChannel } from '@vmferry/wire/control';
import { Link } from '@vmferry/wire/link';
import { Listener } from '@vmferry/wire/listener';
import { connect, connectData, DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, expect, test } from 'vitest';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startAgent(): Promise<string> {
  const log = createLogger({ level: 'fatal', role: 'dest' });
  const agent = new DestAgent({ stateDir: '/nonexistent', insecure: false, log });
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: {
      [MIGRATION_PATH]: (socket, peer) => agent.acceptMigration(socket, peer),
      [DATA_PATH]: (socket, peer) => agent.acceptMigration(socket, peer),
    },
  });
  cleanups.push(async () => {
    await agent.close();
    await listener.close();
  });
  return listener.url;
}

const hello = {
  type: 'hello',
  versions: [1, 1] as [number, number],
  features: [],
  agent: 'test',
  role: 'control',
  limits: { maxFrameBytes: 1 << 20, windowBytes: 1 << 20 },
} as const;

const open = async (socket: ReturnType<typeof connectData>) =>
  new ControlChannel(new Link(await socket, { name: 'test', onFrame: () => {} }));

test('only data streams are let in on the path for data', async () => {
  const url = await startAgent();
  const control = await open(connectData(url, {}));
  await expect(control.request({ ...hello, features: [] }, 'welcome', 5000)).rejects.toThrow(
    'only data streams come on /v1/data',
  );

  const { session, secret } = await (await open(connect(url, { path: MIGRATION_PATH }))).request(
    { ...hello, features: [] },
    'welcome',
    5000,
  );
  const express = await open(connectData(url, {}));
  const attach = {
    type: 'attach',
    session,
    secret,
    stream: { role: 'express', index: 0 },
    received: 0,
  } as const;
  await expect(express.request(attach, 'attached', 5000)).rejects.toThrow(
    'only data streams come on /v1/data',
  );
});
