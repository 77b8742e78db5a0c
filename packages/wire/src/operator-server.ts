import type { WebSocket } from 'ws';
import { asWireError, WireError } from './errors.ts';
import { tokenAccepted } from './handshake.ts';
import type { JsonRecord } from './json.ts';
import { type OperatorReply, type OperatorRequest, operatorRequestSchema } from './operator.ts';

/** How a handler of a longer request speaks. */
export interface OperatorCall {
  /** Sends an event. Plain JSON. */
  emit(event: unknown): void;
  /** Aborted when the command has gone. */
  readonly signal: AbortSignal;
}

/** Results are plain JSON. What a handler throws is the answer: `code`, `message`, `remedy` and its other fields. */
export interface OperatorHandlers {
  hello(): Promise<unknown>;
  migrate(request: JsonRecord, call: OperatorCall): Promise<unknown>;
  list(): Promise<unknown>;
  status(migration: string | undefined): Promise<unknown>;
  watch(migration: string, call: OperatorCall): Promise<unknown>;
  cancel(migration: string): Promise<unknown>;
}

export interface OperatorServerOptions {
  /** When given, `hello` must come first and bring it. */
  readonly token?: string;
  /** One who has asked nothing by then that he may ask is cut off: there is room for so many connections only. */
  readonly firstRequestMs?: number;
  /** Something was thrown that has no code of its own: a defect, for the log. */
  readonly onDefect?: (error: unknown) => void;
}

/** A command that reads nothing is cut off when so much waits for it. */
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024;
const MAX_OPEN_REQUESTS = 64;
const FIRST_REQUEST_MS = 10_000;
const CLOSE_PROTOCOL_ERROR = 1002;
const CLOSE_POLICY = 1008;

/** Serves one connection until it ends. Never throws; a peer that sends nonsense is dropped. */
export function serveOperator(
  socket: WebSocket,
  handlers: OperatorHandlers,
  options: OperatorServerOptions = {},
): void {
  const gone = new AbortController();
  let greeted = options.token === undefined;
  let open = 0;
  const silent = setTimeout(() => socket.terminate(), options.firstRequestMs ?? FIRST_REQUEST_MS);

  function reply(
    message: OperatorReply | { id: number; event: unknown } | { id: number; ok: true; result: unknown },
  ) {
    if (gone.signal.aborted) return;
    if (socket.bufferedAmount > MAX_BUFFERED_BYTES) socket.terminate();
    else socket.send(JSON.stringify(message));
  }

  function dispatch(request: OperatorRequest): Promise<unknown> {
    const call: OperatorCall = {
      emit: (event) => reply({ id: request.id, event: event ?? null }),
      signal: gone.signal,
    };
    if (request.op === 'hello' && tokenAccepted(options.token, request.token)) greeted = true;
    if (!greeted) throw new WireError('E_AUTH', "the agent's token was not given, or is another one");
    clearTimeout(silent);
    switch (request.op) {
      case 'hello':
        return handlers.hello();
      case 'migrate':
        return handlers.migrate(request.request, call);
      case 'list':
        return handlers.list();
      case 'status':
        return handlers.status(request.migration);
      case 'watch':
        return handlers.watch(request.migration, call);
      case 'cancel':
        return handlers.cancel(request.migration);
    }
  }

  async function serve(request: OperatorRequest): Promise<void> {
    open++;
    try {
      if (open > MAX_OPEN_REQUESTS)
        throw new WireError('E_LIMIT', `${MAX_OPEN_REQUESTS} requests are open already`);
      const result = (await dispatch(request)) ?? null;
      reply({ id: request.id, ok: true, result });
    } catch (error) {
      reply({ id: request.id, ok: false, error: describeError(error, options.onDefect) });
    } finally {
      open--;
    }
  }

  socket.on('message', (data, isBinary) => {
    try {
      if (isBinary) throw new WireError('E_MESSAGE', 'a binary message on the operator API');
      void serve(operatorRequestSchema.parse(JSON.parse(data.toString())));
    } catch (error) {
      const { code } = asWireError(error, 'E_MESSAGE', 'the request cannot be read');
      socket.close(
        code === 'E_LIMIT' ? CLOSE_POLICY : CLOSE_PROTOCOL_ERROR,
        `${code}: the request cannot be read`,
      );
    }
  });
  // 'close' follows.
  socket.on('error', () => {});
  socket.on('close', () => {
    clearTimeout(silent);
    gone.abort();
  });
}

type ErrorReply = Extract<OperatorReply, { ok: false }>['error'];

function describeError(thrown: unknown, onDefect: OperatorServerOptions['onDefect']): ErrorReply {
  if (thrown instanceof Error) {
    const { code, remedy, report } = thrown as { code?: unknown; remedy?: unknown; report?: unknown };
    if (typeof code === 'string' && typeof remedy === 'string') {
      const fields: unknown = typeof report === 'function' ? report.call(thrown) : report;
      return { ...(typeof fields === 'object' ? fields : {}), code, message: thrown.message, remedy };
    }
  }
  onDefect?.(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { code: 'E_INTERNAL', message, remedy: 'Please report it together with the log of the agent.' };
}
