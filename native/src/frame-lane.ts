/**
 * A WebSocket connection after its handshake (RFC 6455), carried past the event loop: one thread receives
 * each message straight into a buffer of the lane's own, another sends from the caller's.
 *
 *     open ── close(), the peer closes or breaks the protocol ──▶ closing ──▶ ended (onEnd)
 *      └────────────── connection lost, terminate() ───────────────────────────▲
 *
 * An open lane keeps the process running, as an open socket does.
 */
import { addon, LaneEvent, type NativeFrameLane } from './addon.ts';
import { boundsError, NativeError, nativeFailure, nativeThrown } from './errors.ts';

export interface FrameLaneOptions {
  /**
   * A connected stream socket that has done its handshake. The lane has its own duplicate; nobody else may
   * read or write any more.
   */
  readonly fd: number;
  /** Which end of the connection this is: clients mask (with zeros), servers do not. */
  readonly role: 'client' | 'server';
  /** The largest message that is received: 1 to 2^30 bytes. Every buffer has this size. */
  readonly maxMessageBytes: number;
  /** How many messages may be received and not recycled, 1 to 1024; then reading stops, and so does the peer. */
  readonly maxBuffers: number;
  /** What was read of the connection before, at most 64 MiB. */
  readonly prefix?: Uint8Array;
}

/** All called on the event loop, from the loop's next turn on. */
export interface FrameLaneHandlers {
  /** `message` is the lane's memory, and good until it is given to `recycle`. Text is not checked to be UTF-8. */
  onMessage(message: Buffer, isBinary: boolean): void;
  /** Pings were answered already. Of several that come at once only the last is told. */
  onPing(payload: Buffer): void;
  onPong(payload: Buffer): void;
  /** The peer broke the protocol and was told so with `closeCode` (1002, 1009); the end follows. */
  onViolation(closeCode: number, message: string): void;
  /** The connection is lost: `E_NATIVE_SYSTEM`, once; the end follows at once. */
  onFailure(error: NativeError): void;
  /**
   * The last call. What the peer's close frame said; 1005 for one without a code, 1006 when there was none.
   */
  onEnd(code: number, reason: Buffer): void;
}

type Done = (error?: Error) => void;

const MAX_MESSAGE_BYTES = 2 ** 30;
const MAX_BUFFERS = 1024;
const MAX_PREFIX_BYTES = 64 * 1024 * 1024;
const MAX_REASON_BYTES = 123;
const CLOSE_ABNORMAL = 1006;
/** One is being filled while the other waits for its turn. */
const BUFFERS_AHEAD = 2;
const NOTHING = Buffer.alloc(0);

export class FrameLane {
  readonly #lane: NativeFrameLane;
  readonly #handlers: FrameLaneHandlers;
  readonly #options: FrameLaneOptions;
  /** By the addon's index. */
  readonly #buffers: Buffer[] = [];
  /** The buffers whose messages were not recycled, by their memory. */
  readonly #handedOut = new Map<ArrayBufferLike, number>();
  readonly #sending: Done[] = [];
  #ended = false;
  #closeCode = CLOSE_ABNORMAL;
  #closeReason: Buffer = NOTHING;

  /** Throws `E_NATIVE_BOUNDS`, or `E_NATIVE_SYSTEM` for a descriptor that is no connected socket. */
  constructor(options: FrameLaneOptions, handlers: FrameLaneHandlers) {
    const { fd, role, maxMessageBytes, prefix = NOTHING } = options;
    checkOptions(options);
    this.#options = options;
    this.#handlers = handlers;
    try {
      this.#lane = new (addon().FrameLane)(
        fd,
        role === 'server',
        maxMessageBytes,
        prefix,
        (kind, a, b, c, bytes, text) => this.#onEvent(kind, a, b, c, bytes ?? NOTHING, text ?? ''),
      );
    } catch (thrown) {
      throw nativeThrown(thrown);
    }
    this.#lendAhead();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** All buffers are handed out: nothing is read before one is recycled. */
  get stalled(): boolean {
    return this.#handedOut.size === this.#options.maxBuffers;
  }

  /** Bytes of all buffers together. */
  get allocatedBytes(): number {
    return this.#buffers.length * this.#options.maxMessageBytes;
  }

  /** The message, or any view into it, is not looked at any more. Throws `E_NATIVE_BOUNDS` for a second time. */
  recycle(message: Uint8Array): void {
    if (this.#ended) return;
    const index = this.#handedOut.get(message.buffer);
    if (index === undefined) throw boundsError('the message is not of this lane, or was recycled already');
    this.#handedOut.delete(message.buffer);
    this.#lane.recycle(index);
  }

  /**
   * Sends a message after those before it. `bytes` must stay as they are until `done`, which is called once:
   * when the kernel has all of it, or with `E_NATIVE_CLOSED` when it will not go.
   */
  send(bytes: Uint8Array, isBinary: boolean, done: Done = () => {}): void {
    if (!(bytes instanceof Uint8Array)) throw boundsError('bytes must be a Uint8Array');
    if (!this.#ended && this.#lane.send(bytes, isBinary)) this.#sending.push(done);
    else process.nextTick(done, closed());
  }

  ping(): void {
    if (!this.#ended) this.#lane.ping();
  }

  /**
   * Sends a close frame after what was sent before. Messages that come are dropped from now on. The end comes
   * when the peer has answered; there is no time limit. Nothing happens on a lane that closes already.
   */
  close(code = 1000, reason = ''): void {
    const valid = Number.isInteger(code) && code >= 1000 && code <= 4999;
    if (!valid) throw boundsError(`a close code is 1000 to 4999, not ${code}`);
    const text = Buffer.from(reason);
    if (text.length > MAX_REASON_BYTES) throw boundsError(`a reason has at most ${MAX_REASON_BYTES} bytes`);
    if (this.#ended) return;
    this.#lane.close(Buffer.concat([Buffer.of(code >> 8, code & 0xff), text]));
  }

  /** Ends the connection at once. Any number of times. */
  terminate(): void {
    if (!this.#ended) this.#lane.terminate();
  }

  #onEvent(kind: number, a: number, b: number, c: number, bytes: Buffer, text: string): void {
    switch (kind) {
      case LaneEvent.message:
        this.#onMessage(a, b, c === 1);
        return;
      case LaneEvent.sent:
        for (const done of this.#sending.splice(0, a)) done();
        return;
      case LaneEvent.ping:
        this.#handlers.onPing(bytes);
        return;
      case LaneEvent.pong:
        this.#handlers.onPong(bytes);
        return;
      case LaneEvent.closed:
        this.#closeCode = a;
        this.#closeReason = bytes;
        return;
      case LaneEvent.violation:
        this.#handlers.onViolation(a, text);
        return;
      case LaneEvent.failed:
        this.#handlers.onFailure(nativeFailure(SYSTEM, text, a));
        return;
      case LaneEvent.ended:
        this.#end();
        return;
    }
  }

  #onMessage(index: number, bytes: number, isBinary: boolean): void {
    const buffer = this.#buffers[index]!;
    this.#handedOut.set(buffer.buffer, index);
    this.#lendAhead();
    this.#handlers.onMessage(buffer.subarray(0, bytes), isBinary);
  }

  /** Buffers are made when they are needed: a lane of small traffic has two. */
  #lendAhead(): void {
    while (
      this.#buffers.length < this.#options.maxBuffers &&
      this.#buffers.length - this.#handedOut.size < BUFFERS_AHEAD
    ) {
      // Of its own, not from Node's shared slab: its memory names it. Pages that no message reaches cost nothing.
      const buffer = Buffer.allocUnsafeSlow(this.#options.maxMessageBytes);
      if (!this.#lend(buffer)) return;
      this.#buffers.push(buffer);
    }
  }

  #lend(buffer: Buffer): boolean {
    try {
      this.#lane.lend(buffer);
      return true;
    } catch (thrown) {
      const error = nativeThrown(thrown);
      // The connection is over, and the news of it are on their way.
      if (error instanceof NativeError && error.code === 'E_NATIVE_CLOSED') return false;
      throw error;
    }
  }

  #end(): void {
    this.#ended = true;
    this.#handedOut.clear();
    this.#buffers.length = 0;
    for (const done of this.#sending.splice(0)) done(closed());
    this.#handlers.onEnd(this.#closeCode, this.#closeReason);
  }
}

/** `Code::System` in cc/outcome.h. */
const SYSTEM = 4;

function closed(): NativeError {
  return new NativeError('E_NATIVE_CLOSED', 'the lane is closed');
}

function checkOptions({ fd, role, maxMessageBytes, maxBuffers, prefix }: FrameLaneOptions): void {
  const within = (value: number, least: number, most: number) =>
    Number.isInteger(value) && value >= least && value <= most;
  if (!within(fd, 0, 2 ** 31 - 1)) throw boundsError(`fd must be a descriptor, not ${fd}`);
  if (role !== 'client' && role !== 'server') throw boundsError('role must be "client" or "server"');
  if (!within(maxMessageBytes, 1, MAX_MESSAGE_BYTES)) {
    throw boundsError(`maxMessageBytes must be 1 to 2^30, not ${maxMessageBytes}`);
  }
  if (!within(maxBuffers, 1, MAX_BUFFERS))
    throw boundsError(`maxBuffers must be 1 to 1024, not ${maxBuffers}`);
  if (prefix !== undefined && (!(prefix instanceof Uint8Array) || prefix.length > MAX_PREFIX_BYTES)) {
    throw boundsError('prefix must be a Uint8Array of at most 64 MiB');
  }
}
