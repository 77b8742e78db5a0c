/**
 * The memory of frames on their way, from when they are built until the destination has them. A frame holds its
 * batch's own memory or a buffer that is lent here; both count, and who asks for more than there is waits in line.
 */
import { BATCH_PAYLOAD_BYTES, POSTCOPY_BATCH, payloadBytes } from '@vmferry/engine/carriage/batch-limits';
import { HEADER_BYTES } from '@vmferry/wire/frame';

/** Sizes of the buffers that are kept; smallest first. */
const SIZES = [payloadBytes(POSTCOPY_BATCH), BATCH_PAYLOAD_BYTES].map((bytes) => HEADER_BYTES + bytes);
/** However little memory is allowed: one frame is sent, one packed and one about to be. */
const LEAST_BYTES = 3 * (HEADER_BYTES + BATCH_PAYLOAD_BYTES);

interface Waiter {
  readonly bytes: number;
  readonly resolve: (bytes: number) => void;
  readonly reject: (error: Error) => void;
}

export class FrameRoom {
  readonly #maxBytes: number;
  readonly #waiting: Waiter[] = [];
  readonly #idle: readonly Buffer[][] = SIZES.map(() => []);
  #held = 0;
  #closed = false;

  constructor(maxBytes: number) {
    this.#maxBytes = Math.max(LEAST_BYTES, maxBytes);
  }

  /** Bytes that are held now. */
  get held(): number {
    return this.#held;
  }

  /** Resolves with `bytes`, for `give`, when they may be held. First come, first served. Rejects when closed. */
  take(bytes: number): Promise<number> {
    if (this.#closed) return Promise.reject(closed());
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#held += bytes;
      return Promise.resolve(bytes);
    }
    return new Promise((resolve, reject) => this.#waiting.push({ bytes, resolve, reject }));
  }

  give(bytes: number): void {
    this.#held -= bytes;
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#held += next.bytes;
      next.resolve(next.bytes);
    }
  }

  /** A buffer of at least so many bytes, for `takeBack`. Waits and rejects like `take`. */
  async lend(bytes: number): Promise<Buffer> {
    const size = SIZES.findIndex((size) => size >= bytes);
    const held = await this.take(SIZES[size] ?? bytes);
    return this.#idle[size]?.pop() ?? Buffer.allocUnsafeSlow(held);
  }

  takeBack(buffer: Buffer): void {
    const size = SIZES.indexOf(buffer.length);
    if (size >= 0 && !this.#closed) this.#idle[size]!.push(buffer);
    this.give(buffer.length);
  }

  /** Rejects all who wait, and whoever asks from now on. What is held stays good until it is given back. */
  close(): void {
    this.#closed = true;
    for (const idle of this.#idle) idle.length = 0;
    for (const { reject } of this.#waiting.splice(0)) reject(closed());
  }

  /** What is larger than all there is goes alone. */
  #fits(bytes: number): boolean {
    return this.#held === 0 || this.#held + bytes <= this.#maxBytes;
  }
}

function closed(): Error {
  return new Error('the carrier is closed');
}
