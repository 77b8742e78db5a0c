/**
 * Pulls chunks from QEMU's socket, one ahead of the one that is being used. Nothing is pulled before the first
 * `read`: what QEMU writes until then waits with it.
 *
 *     free ──▶ being filled (on a worker) ──▶ filled ──▶ in use, until the next `read` ──▶ free
 */
import type { LocalSocket } from '@vmferry/native/local-socket';

const BUFFER_BYTES = 512 * 1024;
/** Taken at a time in post-copy: pages are handed on when their chunk ends. */
const EAGER_BYTES = 256 * 1024;
const BUFFERS = 3;
const LINGER_MS = 1;

export class SocketReader {
  /** Chunks come as soon as there is anything, instead of in good measure. */
  eager = false;
  /** Taken at a time before post-copy, at most: see `SourceGuest.setPace`. */
  chunkBytes: number = BUFFER_BYTES;
  readonly #socket: LocalSocket;
  readonly #free: Buffer[] = Array.from({ length: BUFFERS }, () => Buffer.allocUnsafeSlow(BUFFER_BYTES));
  readonly #filled: { readonly buffer: Buffer; readonly bytes: number }[] = [];
  #used: Buffer | undefined;
  #filling = false;
  #ended = false;
  #discarding = false;
  #waiter: (() => void) | undefined;

  constructor(socket: LocalSocket) {
    this.#socket = socket;
  }

  /** No chunk is left and none will come. */
  get ended(): boolean {
    return this.#ended && this.#filled.length === 0;
  }

  /** The next chunk, if there is one; the memory of the one before is used again. */
  read(): Buffer | undefined {
    if (this.#used) this.#giveBack(this.#used);
    const next = this.#filled.shift();
    this.#used = next?.buffer;
    this.#fill();
    return next?.buffer.subarray(0, next.bytes);
  }

  /** Resolves when there may be something new to see: a chunk, the end, or a call of `wake`. */
  more(): Promise<void> {
    if (this.#filled.length > 0 || this.#ended) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  wake(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.();
  }

  /** Pulls one chunk more than there is room for, whether anybody reads or not. */
  pullOneMore(): void {
    this.#free.push(Buffer.allocUnsafeSlow(EAGER_BYTES));
    this.#fill();
  }

  /** From now on everything that comes is thrown away. */
  discard(): void {
    this.#discarding = true;
    for (const { buffer } of this.#filled.splice(0)) this.#giveBack(buffer);
    this.#fill();
  }

  #fill(): void {
    if (this.#filling || this.#ended) return;
    const buffer = this.#free.pop();
    if (!buffer) return;
    this.#filling = true;
    const coming = this.eager
      ? this.#socket.receive(buffer.subarray(0, EAGER_BYTES), 1, 0)
      : this.#receive(buffer.subarray(0, Math.min(this.chunkBytes, BUFFER_BYTES)));
    coming.then(
      (bytes) => this.#take(buffer, bytes),
      // What broke is told by QEMU itself, in better words; here it is the end of the stream.
      () => this.#take(buffer, 0),
    );
  }

  /** The smaller ones were for once. */
  #giveBack(buffer: Buffer): void {
    if (buffer.length === BUFFER_BYTES) this.#free.push(buffer);
  }

  #receive(room: Buffer): Promise<number> {
    return this.#socket.receive(room, room.length, LINGER_MS);
  }

  #take(buffer: Buffer, bytes: number): void {
    this.#filling = false;
    if (bytes === 0) this.#ended = true;
    if (bytes === 0 || this.#discarding) this.#giveBack(buffer);
    else this.#filled.push({ buffer, bytes });
    this.#fill();
    this.wake();
  }
}
