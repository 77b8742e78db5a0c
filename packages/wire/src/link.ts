/**
 * One numbered, acknowledged stream of frames over a WebSocket.
 *
 *              close(), drop()             the connection has ended
 *     open ───────────────────▶ closing ─────────────────────────▶ closed
 *      │                                                             ▲
 *      └── connection lost, no sign of life ─────────────────────────┘
 *
 * Kept for later, between `open` and `closed`: `detached`. Every frame that is not acknowledged is retained
 * with its number; a link that is attached again on a new connection sends them again from there on, and the
 * handshake's own frames (sequence 0) are outside the numbering.
 *
 * A frame is acknowledged when the receiver has called `consumed` for it and for all before it.
 */
import { Acknowledger } from './acknowledger.ts';
import { type Clock, systemClock } from './clock.ts';
import { asWireError, WireError } from './errors.ts';
import {
  DEFAULT_FRAME_LIMITS,
  decodeFrame,
  encodeHeader,
  type Frame,
  FrameFlag,
  FrameKind,
  type FrameLimits,
  HEADER_BYTES,
  type OutgoingFrame,
  verifyPayload,
} from './frame.ts';
import type { FrameSocket } from './frame-socket.ts';
import { Heartbeat, type HeartbeatOptions } from './heartbeat.ts';
import { Outbox } from './outbox.ts';
import type { RateLimiter } from './rate-limiter.ts';
import { Reception } from './reception.ts';
import { InFlightWindow, type WindowOptions } from './window.ts';

export interface LinkOptions {
  /** For messages: "control", "data 0". */
  readonly name: string;
  /** What this side takes and sends. */
  readonly limits?: FrameLimits;
  readonly window?: Partial<WindowOptions>;
  /** The most that may be received and not consumed; a peer that sends more is dropped. */
  readonly receiveLimitBytes?: number;
  readonly rateLimiter?: RateLimiter;
  readonly heartbeat?: HeartbeatOptions;
  /** How long an orderly end may take before the connection is cut. */
  readonly closeTimeoutMs?: number;
  readonly clock?: Clock;
  /**
   * Every numbered frame in order, and control frames of the handshake, unless a control channel takes the
   * control frames. `consumed` is due for each, and the payload of a page frame is good until then: a socket
   * that lends its messages gets them back. Payloads of all but bulk page frames are verified.
   */
  readonly onFrame: (frame: Frame, link: Link) => void;
}

const DEFAULT_CLOSE_TIMEOUT_MS = 2000;
const DEFAULT_RECEIVE_LIMIT_BYTES = 32 * 1024 * 1024;
/** More than this in flight means that somebody sends past the window without an end. */
const SEND_NOW_LIMIT_BYTES = 64 * 1024 * 1024;
/** WebSocket close codes (RFC 6455, section 7.4.1). */
const CLOSE_NORMAL = 1000;
const CLOSE_PROTOCOL_ERROR = 1002;
const CLOSE_REASON_BYTES = 123;

export interface LinkStats {
  readonly framesSent: number;
  /** Headers included, acknowledgements not. */
  readonly bytesSent: number;
  readonly framesReceived: number;
  readonly bytesReceived: number;
  /** Smoothed; from sending a frame to learning that it was consumed. 0 if unknown. */
  readonly rttMs: number;
  readonly leastRttMs: number;
  /** The most that was delivered of late. 0 if unknown. */
  readonly rateBytesPerSec: number;
  /** As `rateBytesPerSec`, of moments in which the path was the limit only; 0 before there was one. */
  readonly pathBytesPerSec: number;
}

type State = 'open' | 'closing' | 'closed';

export class Link {
  readonly name: string;
  readonly clock: Clock;
  /** Resolves when the connection has ended; with an error unless the end was orderly. Never rejects. */
  readonly closed: Promise<{ readonly error?: WireError }>;
  /** Takes the control frames instead of `onFrame`. Set by the control channel. */
  onControl: ((frame: Frame) => void) | undefined;

  readonly #socket: FrameSocket;
  readonly #options: LinkOptions;
  readonly #limits: FrameLimits;
  #maxSendBytes: number;
  readonly #window: InFlightWindow;
  readonly #settleClosed: (how: { readonly error?: WireError }) => void;
  #state: State = 'open';
  #error: WireError | undefined;

  // Sending.
  readonly #outbox: Outbox;

  // Receiving.
  readonly #reception: Reception;
  readonly #acknowledger: Acknowledger;

  readonly #heartbeat: Heartbeat;
  #stopCloseTimer: () => void = () => {};

  constructor(socket: FrameSocket, options: LinkOptions) {
    this.name = options.name;
    this.clock = options.clock ?? systemClock;
    this.#socket = socket;
    this.#options = options;
    this.#limits = options.limits ?? DEFAULT_FRAME_LIMITS;
    this.#maxSendBytes = this.#limits.maxFrameBytes;
    this.#window = new InFlightWindow(options.window);
    this.#outbox = new Outbox({
      name: options.name,
      clock: this.clock,
      window: this.#window,
      rateLimiter: options.rateLimiter,
      write: (frame, sequence) => this.#write(frame, sequence),
    });
    this.#reception = new Reception({
      name: options.name,
      socket,
      limitBytes: options.receiveLimitBytes ?? DEFAULT_RECEIVE_LIMIT_BYTES,
    });
    this.#acknowledger = new Acknowledger({
      reception: this.#reception,
      isOpen: () => this.#state === 'open',
      put: (message, done) => this.#put(message, done),
    });
    let settle: (how: { readonly error?: WireError }) => void = () => {};
    this.closed = new Promise((resolve) => {
      settle = resolve;
    });
    this.#settleClosed = settle;
    this.#heartbeat = new Heartbeat(socket, this.clock, options.heartbeat, (silentMs) =>
      this.#onSilence(silentMs),
    );
    socket.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    socket.on('ping', () => this.#heartbeat.hear());
    socket.on('pong', () => this.#heartbeat.hear());
    socket.on('error', (error) => this.#onSocketError(error));
    socket.on('close', (code, reason) => this.#onClose(code, reason.toString()));
  }

  get state(): State {
    return this.#state;
  }

  /** Bytes sent and not acknowledged. */
  get bytesInFlight(): number {
    return this.#window.bytesInFlight;
  }

  /** Bytes that may be in flight. */
  get window(): number {
    return this.#window.size;
  }

  /** The last sequence that was sent; 0 for none. */
  get lastSent(): number {
    return this.#outbox.lastSent;
  }

  /** The last sequence that was received in order; 0 for none. */
  get lastReceived(): number {
    return this.#reception.last;
  }

  /** What the operator lets this link and those that share its limiter carry together; infinite without a limit. */
  get limitBytesPerSec(): number {
    return this.#options.rateLimiter?.bytesPerSec || Number.POSITIVE_INFINITY;
  }

  get stats(): LinkStats {
    return {
      framesSent: this.#outbox.lastSent,
      bytesSent: this.#outbox.bytesSent,
      framesReceived: this.#reception.frames,
      bytesReceived: this.#reception.bytes,
      rttMs: this.#window.smoothedRttMs,
      leastRttMs: this.#window.leastRttMs,
      rateBytesPerSec: this.#window.rateBytesPerSec,
      pathBytesPerSec: this.#window.pathBytesPerSec,
    };
  }

  /**
   * Resolves when the frame has been taken: it was within the window and is on its way. Frames go out in the
   * order of the calls. Rejects with `WireError`: `E_LIMIT` for a frame that is too large, or why the link
   * closed. The frame's `release` is called in every case.
   */
  async send(frame: OutgoingFrame): Promise<void> {
    this.#refuseUnsendable(frame);
    await this.#outbox.send(frame);
  }

  /**
   * Sends a frame at once, past the window, the rate limit and the frames that wait for them; its bytes count.
   * To keep the order with frames given to `send`, await those first. Throws `WireError` as `send` does.
   */
  sendNow(frame: OutgoingFrame): void {
    this.#refuseUnsendable(frame);
    if (this.bytesInFlight + frame.buffer.length > SEND_NOW_LIMIT_BYTES) {
      frame.release?.();
      throw new WireError('E_LIMIT', `the peer of ${this.name} acknowledges nothing any more`);
    }
    this.#outbox.sendNow(frame);
  }

  /**
   * Sends a control frame of the handshake: it has no number and is not acknowledged. `release` is called when
   * it has been written.
   */
  sendUnnumbered(frame: OutgoingFrame): void {
    this.#refuseUnsendable(frame);
    this.#write(frame, 0, () => frame.release?.());
  }

  /** Keeps to what the peer said in its handshake, where that is less than this side's own limits. */
  keepTo(peer: { readonly maxFrameBytes: number; readonly windowBytes: number }): void {
    this.#maxSendBytes = Math.min(this.#maxSendBytes, peer.maxFrameBytes);
    this.#window.limit(peer.windowBytes);
  }

  /** The frame has been dealt with. In any order; the acknowledgement moves over what is contiguous. */
  consumed(frame: Pick<Frame, 'sequence' | 'frameBytes'>): void {
    if (frame.sequence === 0) return;
    this.#reception.consumed(frame);
    this.#acknowledger.consumed();
  }

  /** Resolves when everything that was sent has been acknowledged. Rejects when the link closes before. */
  drained(): Promise<void> {
    return this.#outbox.drained();
  }

  /** Ends the connection in an orderly way. Frames that wait are refused, sent ones are still delivered. */
  close(): Promise<{ readonly error?: WireError }> {
    if (this.#state === 'open') {
      this.#acknowledger.tell();
      this.#end(CLOSE_NORMAL, '');
    }
    return this.closed;
  }

  /** Drops a peer that broke the protocol: it is told why, nothing that it sends is looked at any more. */
  drop(error: WireError): void {
    if (this.#state !== 'open') return;
    this.#error = error;
    this.#end(CLOSE_PROTOCOL_ERROR, `${error.code}: ${error.message}`);
  }

  #end(code: number, reason: string): void {
    this.#state = 'closing';
    this.#heartbeat.stop();
    this.#outbox.close(this.#whyClosed());
    this.#socket.close(code, truncated(reason, CLOSE_REASON_BYTES));
    this.#stopCloseTimer = this.clock.after(this.#options.closeTimeoutMs ?? DEFAULT_CLOSE_TIMEOUT_MS, () =>
      this.#socket.terminate(),
    );
  }

  // ── sending ──

  #refuseUnsendable(frame: OutgoingFrame): void {
    const bytes = frame.buffer.length;
    const problem =
      this.#state !== 'open'
        ? this.#whyClosed()
        : bytes > this.#maxSendBytes || bytes < HEADER_BYTES
          ? new WireError('E_LIMIT', `a frame of ${bytes} bytes cannot be sent on ${this.name}`)
          : undefined;
    if (problem === undefined) return;
    frame.release?.();
    throw problem;
  }

  #write(frame: OutgoingFrame, sequence: number, done: () => void = () => {}): void {
    encodeHeader(frame.buffer, {
      ...frame,
      sequence,
      acknowledgement: this.#reception.consumedUpTo,
      payloadBytes: frame.buffer.length - HEADER_BYTES,
    });
    this.#reception.acknowledge();
    this.#put(frame.buffer, done);
  }

  /** `done` is called also on failure, which the socket reports by 'error' and 'close' as well. */
  #put(message: Uint8Array, done: () => void): void {
    this.#socket.send(message, { binary: true, compress: false }, done);
  }

  // ── receiving ──

  #onMessage(data: Buffer | ArrayBuffer | Buffer[], isBinary: boolean): void {
    this.#heartbeat.hear();
    if (this.#state !== 'open') {
      if (data instanceof Uint8Array) this.#socket.recycle?.(data);
      return;
    }
    try {
      if (!isBinary || !(data instanceof Uint8Array)) {
        throw new WireError('E_FRAME', `a text message came on ${this.name}, where frames are expected`);
      }
      this.#onReceived(this.#reception.borrow(decodeFrame(data, this.#limits), data));
    } catch (error) {
      this.drop(asWireError(error, 'E_CLOSED', `a frame of ${this.name} could not be handled`));
    }
  }

  #onReceived(frame: Frame): void {
    this.#outbox.acknowledged(frame.acknowledgement);
    if (frame.kind === FrameKind.ack) return;
    this.#reception.received(frame);
    if (frame.kind !== FrameKind.pages || (frame.flags & FrameFlag.express) !== 0) verifyPayload(frame);
    if (frame.kind === FrameKind.control && this.onControl !== undefined) this.onControl(frame);
    else this.#options.onFrame(frame, this);
  }

  // ── the end ──

  #onSilence(silentMs: number): void {
    const what = `nothing was heard from the peer of ${this.name} for ${Math.round(silentMs)} ms`;
    this.drop(new WireError('E_TIMEOUT', what));
    this.#socket.terminate();
  }

  #onSocketError(error: Error): void {
    if (this.#state !== 'open') return;
    const code = String((error as { code?: unknown }).code);
    const cause = error;
    if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') {
      this.drop(new WireError('E_LIMIT', `a message on ${this.name} is larger than agreed`, { cause }));
    } else if (code.startsWith('WS_ERR_')) {
      this.drop(
        new WireError('E_FRAME', `what came on ${this.name} is no WebSocket: ${error.message}`, { cause }),
      );
    } else {
      // 'close' follows.
      this.#error = new WireError('E_CLOSED', `the connection of ${this.name} was lost: ${error.message}`, {
        cause,
      });
    }
  }

  #onClose(code: number, reason: string): void {
    const orderly = this.#error === undefined && (this.#state === 'closing' || code === CLOSE_NORMAL);
    if (!orderly) {
      this.#error ??= new WireError(
        'E_CLOSED',
        reason === ''
          ? `the connection of ${this.name} was lost (WebSocket close code ${code})`
          : `the peer closed ${this.name}: ${reason}`,
      );
    }
    this.#state = 'closed';
    this.#heartbeat.stop();
    this.#stopCloseTimer();
    this.#outbox.lost(this.#whyClosed());
    this.#settleClosed(this.#error === undefined ? {} : { error: this.#error });
  }

  #whyClosed(): WireError {
    return this.#error ?? new WireError('E_CLOSED', `${this.name} is closed`);
  }
}

/** The longest beginning of `text` that fits into `maxBytes` of UTF-8. */
function truncated(text: string, maxBytes: number): string {
  let end = text.length;
  while (Buffer.byteLength(text.slice(0, end)) > maxBytes) end--;
  return text.slice(0, end);
}
