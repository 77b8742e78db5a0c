/** When a link's peer is told what was consumed, and how: by a frame that has no other purpose. */
import { Codec, encodeHeader, FrameKind, HEADER_BYTES } from './frame.ts';
import type { Reception } from './reception.ts';

const ACK_BYTES = 256 * 1024;

export interface AcknowledgerOptions {
  readonly reception: Reception;
  readonly isOpen: () => boolean;
  /** Puts a message on its way; `done` is called also on failure. */
  readonly put: (message: Uint8Array, done: () => void) => void;
}

export class Acknowledger {
  readonly #options: AcknowledgerOptions;
  #scheduled = false;
  #beingWritten = false;

  constructor(options: AcknowledgerOptions) {
    this.#options = options;
  }

  /** Something was consumed: the peer is told soon, and at once if it is much. */
  consumed(): void {
    const { reception } = this.#options;
    if (reception.unacknowledgedBytes >= ACK_BYTES) this.tell();
    else if (!this.#scheduled && reception.owesAcknowledgement) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.tell();
      });
    }
  }

  /**
   * Tells the peer, unless a frame has carried the news already. One at a time: a peer that does not read
   * gets no heap of them.
   */
  tell(): void {
    const { isOpen, put, reception } = this.#options;
    if (!isOpen() || this.#beingWritten || !reception.owesAcknowledgement) return;
    const message = Buffer.allocUnsafe(HEADER_BYTES);
    encodeHeader(message, {
      kind: FrameKind.ack,
      flags: 0,
      codec: Codec.none,
      sequence: 0,
      acknowledgement: reception.consumedUpTo,
      epoch: 0,
      round: 0,
      block: 0,
      count: 0,
      rawBytes: 0,
      payloadBytes: 0,
      payloadHash: { hi: 0, lo: 0 },
    });
    reception.acknowledge();
    this.#beingWritten = true;
    put(message, () => {
      this.#beingWritten = false;
      this.tell();
    });
  }
}
