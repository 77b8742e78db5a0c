/**
 * What has come on a link: numbered frames in order, how much of them is not consumed, and up to where all of them are,
 * which is what the peer is told.
 */
import { WireError } from './errors.ts';
import { type Frame, FrameKind } from './frame.ts';
import type { FrameSocket } from './frame-socket.ts';

/** Up to here a copy costs less than holding on to a lent message. */
const COPY_BYTES = 16 * 1024;

export interface ReceptionOptions {
  /** The link's, for messages. */
  readonly name: string;
  readonly socket: Pick<FrameSocket, 'recycle'>;
  /** The most that may be received and not consumed. */
  readonly limitBytes: number;
}

export class Reception {
  readonly #options: ReceptionOptions;
  #last = 0;
  #frames = 0;
  #bytes = 0;
  #unconsumedBytes = 0;
  #consumedUpTo = 0;
  readonly #consumedBeyond = new Map<number, number>();
  #acknowledged = 0;
  #unacknowledgedBytes = 0;
  /** The socket's messages that frames which are not consumed lie in, by their sequence. */
  readonly #borrowed = new Map<number, Uint8Array>();

  constructor(options: ReceptionOptions) {
    this.#options = options;
  }

  /** The last sequence that was received in order; 0 for none. */
  get last(): number {
    return this.#last;
  }

  get frames(): number {
    return this.#frames;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Every frame up to here was consumed. */
  get consumedUpTo(): number {
    return this.#consumedUpTo;
  }

  /** The peer has not been told of all that was consumed. */
  get owesAcknowledgement(): boolean {
    return this.#acknowledged !== this.#consumedUpTo;
  }

  /** Consumed, and the peer does not know it. */
  get unacknowledgedBytes(): number {
    return this.#unacknowledgedBytes;
  }

  /** The peer is told of all that was consumed. */
  acknowledge(): void {
    this.#acknowledged = this.#consumedUpTo;
    this.#unacknowledgedBytes = 0;
  }

  /**
   * Where messages are lent, only pages stay in theirs until they are consumed. Others are few, and what is
   * made of them may keep views into them; and little ones would take the place of big ones.
   */
  borrow(frame: Frame, message: Uint8Array): Frame {
    const { socket } = this.#options;
    if (socket.recycle === undefined) return frame;
    if (frame.kind === FrameKind.pages && frame.frameBytes > COPY_BYTES) {
      this.#borrowed.set(frame.sequence, message);
      return frame;
    }
    const copied = { ...frame, payload: Buffer.from(frame.payload) };
    socket.recycle(message);
    return copied;
  }

  /** Throws `WireError`: `E_SEQUENCE`, or `E_LIMIT` where the peer sends more than it may. */
  received({ sequence, frameBytes }: Frame): void {
    const { limitBytes, name } = this.#options;
    if (sequence !== 0) {
      if (sequence !== this.#last + 1) {
        throw new WireError(
          'E_SEQUENCE',
          `frame ${sequence} came on ${name} where ${this.#last + 1} was due`,
        );
      }
      this.#unconsumedBytes += frameBytes;
      if (this.#unconsumedBytes > limitBytes) {
        throw new WireError(
          'E_LIMIT',
          `the peer has ${this.#unconsumedBytes} bytes in flight on ${name}, and ${limitBytes} is the limit`,
        );
      }
      this.#last = sequence;
      this.#frames++;
    }
    this.#bytes += frameBytes;
  }

  /** In any order. Throws `WireError` E_SEQUENCE for a frame that is not there to be consumed. */
  consumed({ sequence, frameBytes }: Pick<Frame, 'sequence' | 'frameBytes'>): void {
    if (sequence <= this.#consumedUpTo || sequence > this.#last || this.#consumedBeyond.has(sequence)) {
      const { name } = this.#options;
      throw new WireError('E_SEQUENCE', `frame ${sequence} of ${name} was consumed twice or never came`);
    }
    this.#giveBack(sequence);
    this.#unconsumedBytes -= frameBytes;
    this.#consumedBeyond.set(sequence, frameBytes);
    for (;;) {
      const bytes = this.#consumedBeyond.get(this.#consumedUpTo + 1);
      if (bytes === undefined) break;
      this.#consumedUpTo++;
      this.#consumedBeyond.delete(this.#consumedUpTo);
      this.#unacknowledgedBytes += bytes;
    }
  }

  #giveBack(sequence: number): void {
    const message = this.#borrowed.get(sequence);
    if (message === undefined) return;
    this.#borrowed.delete(sequence);
    this.#options.socket.recycle?.(message);
  }
}
