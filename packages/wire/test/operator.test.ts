import { afterEach, describe, expect, test } from 'vitest';
import type { WebSocket } from 'ws';
import { Listener } from '../src/listener.ts';
import { OperatorError } from '../src/operator.ts';
import { OperatorClient } from '../src/operator-client.ts';
import { type OperatorHandlers, type OperatorServerOptions, serveOperator } from '../src/operator-server.ts';
import { connect, OPERATOR_PATH } from '../src/socket.ts';
import { deferred, wireErrorFrom } from './support.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const quiet: OperatorHandlers = {
  hello: async () => ({ agent: '0.1.0' }),
  migrate: async () => null,
  list: async () => [],
  status: async (migration) => ({ migration: migration ?? null }),
  watch: async () => null,
  cancel: async () => undefined,
};

async function agent(
  handlers: Partial<OperatorHandlers> = {},
  options: OperatorServerOptions = {},
): Promise<string> {
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: {
      [OPERATOR_PATH]: (socket: WebSocket) => serveOperator(socket, { ...quiet, ...handlers }, options),
    },
  });
  cleanups.push(() => listener.close());
  return listener.url;
}

async function client(handlers: Partial<OperatorHandlers> = {}, options: OperatorServerOptions = {}) {
  const operator = await OperatorClient.connect(await agent(handlers, options));
  cleanups.push(async () => operator.close());
  return operator;
}

async function operatorErrorFrom(promise: Promise<unknown>): Promise<OperatorError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof OperatorError)) throw new Error(`not an OperatorError: ${String(error)}`);
  return error;
}

describe('the operator API', () => {
  test('answers simple requests', async () => {
    const operator = await client();
    expect(await operator.call('hello', {})).toEqual({ agent: '0.1.0' });
    expect(await operator.call('list', {})).toEqual([]);
    expect(await operator.call('status', { migration: 'm1' })).toEqual({ migration: 'm1' });
    expect(await operator.call('status', {})).toEqual({ migration: null });
    expect(await operator.call('cancel', { migration: 'm1' })).toBeNull();
  });

  test('streams the events of a migration and then its result', async () => {
    const operator = await client({
      migrate: async (request, { emit }) => {
        for (let round = 1; round <= 3; round++) emit({ type: 'round', round });
        return { outcome: 'completed', guest: request['guest'] ?? null };
      },
    });
    const { events, result } = operator.stream('migrate', { request: { guest: 'sim:a', unset: undefined } });
    const seen: unknown[] = [];
    for await (const event of events) seen.push(event);
    expect(seen).toEqual([1, 2, 3].map((round) => ({ type: 'round', round })));
    expect(await result).toEqual({ outcome: 'completed', guest: 'sim:a' });
  });

  test('keeps overlapping requests apart', async () => {
    const gate = deferred();
    const operator = await client({ watch: (migration) => gate.promise.then(() => migration) });
    const slow = ['a', 'b'].map((migration) => operator.call('watch', { migration }));
    expect(await operator.call('list', {})).toEqual([]);
    gate.resolve();
    expect(await Promise.all(slow)).toEqual(['a', 'b']);
  });

  test('gives an error with everything that the agent told of it', async () => {
    const fields = {
      code: 'E_STALLED',
      side: 'source',
      phase: 'precopy',
      guestRunsOn: 'source',
      remedy: 'Wait.',
    };
    class Told extends Error {
      readonly code = fields.code;
      readonly remedy = fields.remedy;
      report() {
        return { ...fields, message: this.message };
      }
    }
    const operator = await client({ migrate: () => Promise.reject(new Told('it stalls')) });
    const { events, result } = operator.stream('migrate', { request: {} });
    const error = await operatorErrorFrom(result);
    expect(error).toMatchObject({ code: 'E_STALLED', message: 'it stalls', remedy: 'Wait.' });
    expect(error.report).toEqual({ ...fields, message: 'it stalls' });
    for await (const event of events) throw new Error(`unexpected ${String(event)}`);
  });

  test('reports a defect as one, and lets the agent log it', async () => {
    const defects: unknown[] = [];
    const operator = await client(
      { list: () => Promise.reject(new TypeError('x is undefined')) },
      { onDefect: (error) => defects.push(error) },
    );
    expect(await operatorErrorFrom(operator.call('list', {}))).toMatchObject({ code: 'E_INTERNAL' });
    expect(defects).toHaveLength(1);
  });

  test('tells a handler when the command has gone', async () => {
    const aborted = deferred();
    const started = deferred();
    const operator = await client({
      watch: (_migration, { signal }) => {
        signal.addEventListener('abort', () => aborted.resolve());
        started.resolve();
        return aborted.promise;
      },
    });
    const result = wireErrorFrom(operator.call('watch', { migration: 'm1' }));
    await started.promise;
    operator.close();
    await aborted.promise;
    expect((await result).code).toBe('E_CLOSED');
    expect((await wireErrorFrom(operator.call('list', {}))).code).toBe('E_CLOSED');
  });

  test('wants the token before anything else, where there is one', async () => {
    const operator = await client({}, { token: 'right' });
    expect((await operatorErrorFrom(operator.call('list', {}))).code).toBe('E_AUTH');
    expect((await operatorErrorFrom(operator.call('hello', { token: 'wrong' }))).code).toBe('E_AUTH');
    expect(await operator.call('hello', { token: 'right' })).toEqual({ agent: '0.1.0' });
    expect(await operator.call('list', {})).toEqual([]);
  });

  test.each([undefined, 'wrong'])(
    'ends a connection that asks nothing it may ask (token %s)',
    async (token) => {
      const url = await agent({}, { token: 'right', firstRequestMs: 300 });
      const asks = await OperatorClient.connect(url);
      cleanups.push(async () => asks.close());
      await asks.call('hello', { token: 'right' });
      const silent = await connect(url, { path: OPERATOR_PATH });
      const closed = new Promise((resolve) => silent.on('close', resolve));
      if (token !== undefined) silent.send(JSON.stringify({ id: 1, op: 'hello', token }));
      await closed;
      expect(await asks.call('list', {})).toEqual([]);
    },
  );

  test.each(['{', '[]', '{"id":1,"op":"format"}', '{"id":"x","op":"list"}', '{"id":1,"op":"watch"}'])(
    'ends a connection on which %s is sent',
    async (text) => {
      const socket = await connect(await agent(), { path: OPERATOR_PATH });
      const closed = new Promise<string>((resolve) =>
        socket.on('close', (code, reason) => resolve(`${code} ${reason.toString()}`)),
      );
      socket.send(text);
      expect(await closed).toBe('1002 E_MESSAGE: the request cannot be read');
    },
  );
});
