import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DestAgentOptions, defaultLimits } from '@vmferry/agent-core/config';
import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent, type DestAgentParts } from '@vmferry/dest-agent/agent';
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import { ControlChannel } from '@vmferry/wire/control';
import { Link } from '@vmferry/wire/link';
import { Listener } from '@vmferry/wire/listener';
import { connect, connectData, DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, expect, test } from 'vitest';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startAgent(options: Partial<DestAgentOptions> = {}): Promise<string> {
  return (await started(options)).url;
}

async function started(
  options: Partial<DestAgentOptions>,
  parts: DestAgentParts = {},
): Promise<{ agent: DestAgent; url: string }> {
  const log = createLogger({ level: 'fatal', role: 'dest' });
  const agent = new DestAgent({ stateDir: '/nonexistent', insecure: false, log, ...options }, parts);
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
  return { agent, url: listener.url };
}

const hello = {
  type: 'hello',
  versions: [1, 1] as [number, number],
  features: [],
  agent: 'test',
  role: 'control',
  limits: { maxFrameBytes: 1 << 20, windowBytes: 1 << 20 },
} as const;

const offer = { type: 'open', guest: {}, request: {}, plan: { postcopy: false }, streams: 1 } as const;

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

test('the smallest window that can be configured is one that works', async () => {
  const url = await startAgent({ limits: { ...defaultLimits(), windowBytes: 64 * 1024 } });
  const control = await open(connect(url, { path: MIGRATION_PATH }));
  const { limits } = await control.request({ ...hello, features: [] }, 'welcome', 5000);
  expect(limits.windowBytes).toBe(64 * 1024);
});

test('a guest whose configured command is wrong is refused, and the agent lives on', async () => {
  const url = await startAgent({
    guests: { web1: { qmp: '/nonexistent/qmp', command: ['/nonexistent/qemu'] } },
  });
  for (let times = 0; times < 2; times += 1) {
    const control = await open(connect(url, { path: MIGRATION_PATH }));
    await control.request({ ...hello, features: [] }, 'welcome', 5000);
    const { reasons } = await control.request({ ...offer, destGuest: 'qemu:web1' }, 'rejected', 5000);
    expect(reasons).toMatchObject([{ code: 'E_GUEST_UNREACHABLE' }]);
    await control.link.close();
  }
});

test('a peer whose hello comes with nonsense right behind it is dropped, and the agent lives on', async () => {
  const url = await startAgent();
  const socket = await connect(url, { path: MIGRATION_PATH });
  const link = new Link(socket, { name: 'test', onFrame: () => {} });
  const stream = Reflect.get(socket, '_socket') as Socket;
  // So that both are in one piece.
  stream.cork();
  new ControlChannel(link).send({ ...hello, features: [] });
  socket.send(Buffer.from('nonsense'));
  stream.uncork();
  expect((await link.closed).error?.message).toContain('E_FRAME');
  const control = await open(connect(url, { path: MIGRATION_PATH }));
  await control.request({ ...hello, features: [] }, 'welcome', 5000);
});

test('a hypervisor that cannot be let go of does not end the agent', async () => {
  const guest: Pick<DestGuest, 'close'> = {
    close: () => Promise.reject(new GuestError('E_GUEST_FAILED', 'it does not answer', 'end it')),
  };
  const { agent, url } = await started({}, { guests: async () => guest as DestGuest });
  const control = await open(connect(url, { path: MIGRATION_PATH }));
  await control.request({ ...hello, features: [] }, 'welcome', 5000);
  // Its description is none.
  control.send({ ...offer, destGuest: 'qemu:/web1' });
  await control.link.closed;
  await expect.poll(() => agent.list()).toMatchObject([{ guest: 'qemu:/web1', outcome: 'refused' }]);
});

const description = {
  ...{ kind: 'qemu', name: 'web1', hypervisorVersion: 'QEMU 7.2.22', machine: 'pc-i440fx-7.2', vcpus: 1 },
  ...{ memoryBytes: 1 << 20, blocks: [], nics: [], running: true, oneLiveRound: false },
};

test('a migration that is started twice is refused, also while its journal is being opened', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-started-'));
  cleanups.push(() => rm(stateDir, { recursive: true }));
  let opened = 0;
  const guest: Partial<DestGuest> = {
    gone: new Promise(() => {}),
    events: (async function* () {})(),
    prepare: () => Promise.resolve({ ok: true, hypervisorVersion: 'QEMU 7.2.22', nics: [] }),
    open: () => {
      opened += 1;
      return Promise.resolve();
    },
    discard: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  const { agent, url } = await started({ stateDir }, { guests: async () => guest as DestGuest });
  const socket = await connect(url, { path: MIGRATION_PATH });
  const control = new ControlChannel(new Link(socket, { name: 'test', onFrame: () => {} }));
  await control.request({ ...hello, features: [] }, 'welcome', 5000);
  await control.request({ ...offer, guest: description, destGuest: 'qemu:/web1' }, 'accepted', 5000);
  const stream = Reflect.get(socket, '_socket') as Socket;
  stream.cork();
  control.send({ type: 'start' });
  control.send({ type: 'start' });
  stream.uncork();
  expect((await control.link.closed).error?.message).toContain('the migration cannot be started twice');
  await expect.poll(() => agent.list()).toMatchObject([{ outcome: 'refused' }]);
  expect(opened).toBe(0);
});

test('an agent that was told to end takes no more guests in', async () => {
  const { agent, url } = await started({});
  const before = await open(connect(url, { path: MIGRATION_PATH }));
  await before.request({ ...hello, features: [] }, 'welcome', 5000);
  // A session in which nothing was begun is waited for by nobody.
  await agent.close();
  await before.link.closed;
  const control = await open(connect(url, { path: MIGRATION_PATH }));
  await expect(control.request({ ...hello, features: [] }, 'welcome', 5000)).rejects.toMatchObject({
    code: 'E_REFUSED',
    message: 'the destination agent was told to end, and takes no more guests in',
  });
});
