import type { MigrationEvent } from '@vmferry/engine/events';
import { OperatorClient } from '@vmferry/wire/operator-client';
import { connect, DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, describe, expect, it } from 'vitest';
import { createLogger } from '../src/log.ts';
import { eventSchema, reportReplySchema } from '../src/operator-api.ts';
import { type AgentServer, type ServeOptions, serveAgent } from '../src/serve.ts';
import { FakeOperations, reportOf } from './fake-operations.ts';

const log = createLogger({ level: 'silent', role: 'source' });
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function agent(options: Partial<ServeOptions> = {}): Promise<AgentServer & { fake: FakeOperations }> {
  const fake = new FakeOperations(options.acceptMigration === undefined ? 'source' : 'dest');
  const server = await serveAgent({
    operations: fake,
    listen: 'ws://127.0.0.1:0',
    insecure: false,
    log,
    ...options,
  });
  closers.push(() => server.close());
  return { ...server, fake };
}

async function operator(url: string): Promise<OperatorClient> {
  const client = await OperatorClient.connect(url);
  closers.push(() => client.close());
  return client;
}

const request = { guest: 'sim:web1', to: 'ws://127.0.0.1:1' };
const note = (text: string): MigrationEvent => ({ type: 'note', text });

describe('an agent that serves operators', () => {
  it('says who it is', async () => {
    const { url } = await agent();
    expect(await (await operator(url)).call('hello', {})).toEqual({ role: 'source', version: '0.1.0' });
  });

  it('starts a migration, and tells its events and its report', async () => {
    const { url, fake } = await agent();
    fake.script = (migration) => {
      migration.publish(note('a'), note('b'));
      migration.finish();
    };
    const stream = (await operator(url)).stream('migrate', { request });
    const seen: unknown[] = [];
    for await (const event of stream.events) seen.push(event);
    expect(seen[0]).toEqual({ summary: expect.objectContaining({ id: 'm1', guest: 'sim:web1' }) });
    expect(seen.slice(1).map((event) => eventSchema.parse(event))).toEqual([
      note('a'),
      note('b'),
      { type: 'finished', report: reportOf() },
    ]);
    expect(reportReplySchema.parse(await stream.result).report).toEqual(reportOf());
    expect(fake.migrations[0]?.request).toMatchObject({ maxDowntimeMs: 300, strategy: 'auto' });
  });

  it('refuses a request that is none, and names the fault', async () => {
    const { url, fake } = await agent();
    const client = await operator(url);
    await expect(client.call('migrate', { request: { ...request, streams: 99 } })).rejects.toMatchObject({
      report: { code: 'E_USAGE', side: 'source', message: expect.stringContaining('streams') },
    });
    expect(fake.migrations).toEqual([]);
  });

  it('lets a migration go on when its operator goes, and another one watches and cancels it', async () => {
    const { url, fake } = await agent();
    const first = await operator(url);
    const started = first.stream('migrate', { request });
    started.result.catch(() => {});
    await started.events[Symbol.asyncIterator]().next();
    first.close();
    const migration = fake.migrations[0]!;
    await expect.poll(() => migration.hub.observers).toBe(0);
    expect(migration.cancelled).toBe(0);

    const second = await operator(url);
    const watched = second.stream('watch', { migration: 'm1' });
    await watched.events[Symbol.asyncIterator]().next();
    migration.onCancel = () => migration.finish({ outcome: 'cancelled' });
    expect(await second.call('cancel', { migration: 'm1' })).toMatchObject({ summary: { id: 'm1' } });
    expect(await watched.result).toMatchObject({ report: { outcome: 'cancelled' } });
  });

  it('lists migrations, and has the report of those that are over', async () => {
    const { url, fake } = await agent();
    const client = await operator(url);
    fake.migrate({ ...request } as never);
    expect(await client.call('status', { migration: 'm1' })).toMatchObject({ report: null });
    fake.migrations[0]?.finish();
    expect(await client.call('list', {})).toMatchObject({ migrations: [{ id: 'm1', outcome: 'completed' }] });
    expect(await client.call('status', { migration: 'm1' })).toMatchObject({
      report: { outcome: 'completed' },
    });
    expect(await client.call('watch', { migration: 'm1' })).toMatchObject({
      report: { outcome: 'completed' },
    });
  });

  it.each(['status', 'watch', 'cancel'] as const)(
    'refuses to %s a migration that it does not know',
    async (op) => {
      const { url } = await agent();
      await expect((await operator(url)).call(op, { migration: 'nope' })).rejects.toMatchObject({
        report: { code: 'E_USAGE', message: 'this agent knows no migration nope' },
      });
    },
  );

  it('answers nothing without its token', async () => {
    const { url } = await agent({ token: 'a-token-of-some-length' });
    const client = await operator(url);
    await expect(client.call('list', {})).rejects.toMatchObject({ code: 'E_AUTH' });
    await expect(client.call('hello', { token: 'another-token-instead' })).rejects.toMatchObject({
      code: 'E_AUTH',
    });
    await client.call('hello', { token: 'a-token-of-some-length' });
    expect(await client.call('list', {})).toEqual({ migrations: [] });
  });

  it('gives migrations to the handler of a destination, and has no such path on a source', async () => {
    let accepted = 0;
    const dest = await agent({
      acceptMigration: (socket) => {
        accepted++;
        socket.close();
      },
    });
    const source = await agent();
    for (const path of [MIGRATION_PATH, DATA_PATH] as const) {
      const socket = await connect(dest.url, { path });
      await new Promise((resolve) => socket.once('close', resolve));
      await expect(connect(source.url, { path })).rejects.toMatchObject({ code: 'E_CONNECT' });
    }
    expect(accepted).toBe(2);
  });

  it('ends its connections when it closes, and closes twice', async () => {
    const server = await agent();
    const client = await operator(server.url);
    await client.call('hello', {});
    await server.close();
    await server.close();
    await expect(client.call('hello', {})).rejects.toMatchObject({ code: 'E_CLOSED' });
  });

  it.each([
    ['ws://0.0.0.0:0', 'E_CONFIG', /plain text/],
    ['wss://0.0.0.0:0', 'E_CONFIG', /anybody who reaches it/],
    ['wss://127.0.0.1:0', 'E_CONFIG', /anybody who reaches it/],
    ['ws://192.0.2.1:1', 'E_CONFIG', /plain text/],
  ])('refuses to listen on %s without more', async (listen, code, message) => {
    await expect(agent({ listen })).rejects.toMatchObject({
      name: 'MigrationError',
      code,
      message: expect.stringMatching(message),
    });
  });

  it('says that its port is taken', async () => {
    const { url } = await agent();
    await expect(agent({ listen: url })).rejects.toMatchObject({
      code: 'E_CONNECT',
      side: 'source',
      message: expect.stringContaining('something listens there already'),
    });
  });
});
