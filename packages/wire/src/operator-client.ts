import type { RawData, WebSocket } from 'ws';
import { asWireError, WireError } from './errors.ts';
import type { JsonValue } from './json.ts';
import {
  MAX_OPERATOR_MESSAGE_BYTES,
  OperatorError,
  type OperatorOp,
  type OperatorParams,
  operatorReplySchema,
} from './operator.ts';
import { type ConnectOptions, connect, OPERATOR_PATH } from './socket.ts';

/** A request with the events that come before its result. */
export interface OperatorStream {
  /** Ends when the result is there; may be iterated once. Never throws: `result` tells what went wrong. */
  readonly events: AsyncIterable<JsonValue>;
  /** Rejects with `OperatorError`, or with `WireError` when the connection ends. */
  readonly result: Promise<JsonValue>;
}

/** Events that nobody reads are dropped beyond this, the oldest first. */
const MAX_UNREAD_EVENTS = 4096;

class Pending {
  readonly result: Promise<JsonValue>;
  readonly #events: JsonValue[] = [];
  #settle: { resolve: (value: JsonValue) => void; reject: (error: Error) => void } | undefined;
  #wake: () => void = () => {};
  #over = false;

  constructor() {
    this.result = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  event(event: JsonValue): void {
    if (this.#events.length === MAX_UNREAD_EVENTS) this.#events.shift();
    this.#events.push(event);
    this.#wake();
  }

  resolve(value: JsonValue): void {
    this.#settle?.resolve(value);
    this.#end();
  }

  reject(error: Error): void {
    this.#settle?.reject(error);
    this.#end();
  }

  #end(): void {
    this.#over = true;
    this.#wake();
  }

  async *events(): AsyncGenerator<JsonValue> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        yield event;
      } else if (this.#over) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

/** The command's end of the operator's API. */
export class OperatorClient {
  readonly #socket: WebSocket;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #closed: WireError | undefined;

  /** @param socket a socket that is open on the operator's path */
  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    socket.on('error', (error) =>
      this.#end(asWireError(error, 'E_CLOSED', 'the connection to the agent was lost')),
    );
    socket.on('close', (_code, reason) => {
      const why = reason.length === 0 ? '' : `: ${reason.toString()}`;
      this.#end(new WireError('E_CLOSED', `the connection to the agent has ended${why}`));
    });
  }

  /** Rejects with `WireError`, as `connect` does. */
  static async connect(url: string, options: Omit<ConnectOptions, 'path'> = {}): Promise<OperatorClient> {
    const maxMessageBytes = options.maxMessageBytes ?? MAX_OPERATOR_MESSAGE_BYTES;
    return new OperatorClient(await connect(url, { ...options, maxMessageBytes, path: OPERATOR_PATH }));
  }

  /** Asks and gives the result. Rejects with `OperatorError` (the agent's) or `WireError` (the connection's). */
  call<Op extends OperatorOp>(op: Op, params: OperatorParams<Op>): Promise<JsonValue> {
    return this.#ask(op, params).result;
  }

  /** Asks and gives the events on the way to the result. */
  stream<Op extends OperatorOp>(op: Op, params: OperatorParams<Op>): OperatorStream {
    const pending = this.#ask(op, params);
    return { events: pending.events(), result: pending.result };
  }

  close(): void {
    this.#socket.close(1000);
  }

  #ask(op: OperatorOp, params: object): Pending {
    const pending = new Pending();
    if (this.#closed !== undefined) {
      pending.reject(this.#closed);
    } else {
      const id = ++this.#lastId;
      this.#pending.set(id, pending);
      this.#socket.send(JSON.stringify({ ...params, id, op }));
    }
    return pending;
  }

  #onMessage(data: RawData, isBinary: boolean): void {
    try {
      if (isBinary) throw new WireError('E_MESSAGE', 'the agent sent a binary message on the operator API');
      const reply = operatorReplySchema.parse(JSON.parse(data.toString()));
      const pending = this.#pending.get(reply.id);
      if (pending === undefined)
        throw new WireError('E_MESSAGE', `the agent answered request ${reply.id}, which is not open`);
      if ('event' in reply) {
        pending.event(reply.event);
        return;
      }
      this.#pending.delete(reply.id);
      if (reply.ok) pending.resolve(reply.result);
      else pending.reject(new OperatorError(reply.error));
    } catch (error) {
      this.#end(asWireError(error, 'E_MESSAGE', "the agent's answer cannot be read"));
      this.#socket.close(1002);
    }
  }

  #end(error: WireError): void {
    this.#closed ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#closed);
    this.#pending.clear();
  }
}
