/** A link's transport that carries its messages past the event loop: native/src/frame-lane.ts. */
import { EventEmitter } from 'node:events';
import { FrameLane, type FrameLaneOptions } from '@vmferry/native/frame-lane';
import type { FrameSocket } from './frame-socket.ts';

interface LaneEvents {
  message: [message: Buffer, isBinary: boolean];
  ping: [payload: Buffer];
  pong: [payload: Buffer];
  error: [error: Error];
  close: [code: number, reason: Buffer];
}

const CLOSE_TOO_BIG = 1009;

/** The codes are those of `ws`, so that whoever listens need not know which of the two it has. */
class LaneProtocolError extends Error {
  override readonly name = 'LaneProtocolError';
  readonly code: 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' | 'WS_ERR_PROTOCOL';

  constructor(closeCode: number, message: string) {
    super(message);
    this.code = closeCode === CLOSE_TOO_BIG ? 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' : 'WS_ERR_PROTOCOL';
  }
}

export class LaneSocket extends EventEmitter<LaneEvents> implements FrameSocket {
  readonly #lane: FrameLane;

  /** Throws `NativeError`, as `FrameLane` does. */
  constructor(options: FrameLaneOptions) {
    super();
    this.#lane = new FrameLane(options, {
      onMessage: (message, isBinary) => {
        // What nobody listens to is lost, as on any socket, and must not hold up the rest.
        if (!this.emit('message', message, isBinary)) this.recycle(message);
      },
      onPing: (payload) => this.emit('ping', payload),
      onPong: (payload) => this.emit('pong', payload),
      onViolation: (closeCode, message) => this.emit('error', new LaneProtocolError(closeCode, message)),
      onFailure: (error) => this.emit('error', error),
      onEnd: (code, reason) => this.emit('close', code, reason),
    });
  }

  get stalled(): boolean {
    return this.#lane.stalled;
  }

  recycle(message: Uint8Array): void {
    this.#lane.recycle(message);
  }

  send(
    data: Uint8Array,
    options: { binary: boolean; compress: boolean },
    done: (error?: Error) => void,
  ): void {
    this.#lane.send(data, options.binary, done);
  }

  ping(): void {
    this.#lane.ping();
  }

  close(code?: number, reason?: string): void {
    this.#lane.close(code, reason);
  }

  terminate(): void {
    this.#lane.terminate();
  }
}
