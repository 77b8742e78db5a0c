/** Control messages over a link. Pings are answered here and are not handed on. */
import { PeerError, WireError } from './errors.ts';
import { type Frame, FrameKind, frameAround } from './frame.ts';
import type { Link } from './link.ts';
import {
  type ControlMessage,
  decodeMessage,
  encodeMessage,
  isHandshake,
  type MessageType,
  type OutgoingMessage,
} from './messages.ts';

/** What may lie unread before anybody asks for it. */
const MAX_UNREAD = 1024;

interface Expectation {
  readonly types: ReadonlySet<MessageType>;
  readonly resolve: (message: ControlMessage) => void;
  readonly reject: (error: Error) => void;
}

/**
 * An arriving message goes to the first `expect` that waits for its type; else to `onMessage`; while there
 * is no `onMessage`, it is kept for either. A `failure` or `refuse` that nobody expects by its type rejects
 * everything that is expected, and goes to `onMessage` as well.
 */
export class ControlChannel {
  readonly link: Link;
  readonly #unread: ControlMessage[] = [];
  readonly #expected = new Set<Expectation>();
  #onMessage: ((message: ControlMessage) => void) | undefined;
  /** The peer failed while nobody was there to be told. */
  #untold: PeerError | undefined;
  #ended: Error | undefined;

  /** Takes the link's control frames from now on. */
  constructor(link: Link) {
    this.link = link;
    link.onControl = (frame) => this.#onFrame(frame);
    void link.closed.then(({ error }) => {
      this.#ended = error ?? new WireError('E_CLOSED', `${link.name} is closed`);
      this.#rejectAll(this.#ended);
    });
  }

  get onMessage(): ((message: ControlMessage) => void) | undefined {
    return this.#onMessage;
  }

  /** Messages that were kept are handed over at once. */
  set onMessage(handler: ((message: ControlMessage) => void) | undefined) {
    this.#onMessage = handler;
    if (handler !== undefined) for (const message of this.#unread.splice(0)) handler(message);
  }

  /**
   * Sends at once, past the window and the frames that wait for it. Throws `WireError` when the link is
   * closed (`E_CLOSED` or why it closed) or the message is not valid (`E_MESSAGE`, `E_LIMIT`).
   */
  send(message: OutgoingMessage): void {
    const frame = frameAround(FrameKind.control, encodeMessage(message));
    if (isHandshake(message.type)) this.link.sendUnnumbered(frame);
    else this.link.sendNow(frame);
  }

  /** Sends in order with the frames that were given to the link's `send`, within the window. */
  async sendInOrder(message: OutgoingMessage): Promise<void> {
    await this.link.send(frameAround(FrameKind.control, encodeMessage(message)));
  }

  /**
   * The next message of one of these types. Rejects with `PeerError` when the peer refuses or fails, and with
   * `WireError` when the link closes or after `timeoutMs` (`E_TIMEOUT`; Infinity waits for ever).
   */
  expect<T extends MessageType>(types: T | readonly T[], timeoutMs: number): Promise<ControlMessage<T>> {
    const wanted: ReadonlySet<MessageType> = new Set(typeof types === 'string' ? [types] : types);
    const kept = this.#unread.findIndex((message) => wanted.has(message.type));
    if (kept !== -1) return Promise.resolve(this.#unread.splice(kept, 1)[0] as ControlMessage<T>);
    const reason = this.#untold ?? this.#ended;
    this.#untold = undefined;
    if (reason !== undefined) return Promise.reject(reason);
    return new Promise((resolve, reject) => {
      const stopTimer = Number.isFinite(timeoutMs)
        ? this.link.clock.after(timeoutMs, () => {
            this.#expected.delete(expectation);
            const names = [...wanted].map((name) => `"${name}"`).join(' or ');
            reject(
              new WireError('E_TIMEOUT', `no ${names} came on ${this.link.name} within ${timeoutMs} ms`),
            );
          })
        : () => {};
      const expectation: Expectation = {
        types: wanted,
        resolve: (message) => {
          stopTimer();
          resolve(message as ControlMessage<T>);
        },
        reject: (error) => {
          stopTimer();
          reject(error);
        },
      };
      this.#expected.add(expectation);
    });
  }

  /** Sends a message and expects an answer. */
  async request<T extends MessageType>(
    message: OutgoingMessage,
    types: T | readonly T[],
    timeoutMs: number,
  ): Promise<ControlMessage<T>> {
    this.send(message);
    return await this.expect(types, timeoutMs);
  }

  #onFrame(frame: Frame): void {
    const message = decodeMessage(frame.payload);
    if (isHandshake(message.type) !== (frame.sequence === 0)) {
      throw new WireError(
        'E_SEQUENCE',
        `a "${message.type}" message came with the sequence ${frame.sequence}`,
      );
    }
    // Handled means consumed, also when the handler throws: the link is dropped then.
    this.link.consumed(frame);
    if (message.type === 'ping') this.send({ type: 'pong' });
    else this.#dispatch(message);
  }

  #dispatch(message: ControlMessage): void {
    for (const expectation of this.#expected) {
      if (!expectation.types.has(message.type)) continue;
      this.#expected.delete(expectation);
      expectation.resolve(message);
      return;
    }
    if (message.type === 'failure' || message.type === 'refuse') {
      const error = peerError(message);
      if (this.#expected.size === 0 && this.#onMessage === undefined) this.#untold = error;
      this.#rejectAll(error);
      this.#onMessage?.(message);
      return;
    }
    if (this.#onMessage !== undefined) this.#onMessage(message);
    else if (this.#unread.length < MAX_UNREAD) this.#unread.push(message);
    else throw new WireError('E_LIMIT', `${MAX_UNREAD} control messages on ${this.link.name} were not read`);
  }

  #rejectAll(error: Error): void {
    for (const expectation of this.#expected) expectation.reject(error);
    this.#expected.clear();
  }
}

function peerError(message: ControlMessage<'failure' | 'refuse'>): PeerError {
  if (message.type === 'failure') return new PeerError('failure', message.error);
  const { code, message: text, remedy } = message;
  return new PeerError('refuse', { code, message: text, remedy });
}
