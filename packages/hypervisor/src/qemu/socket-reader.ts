/** Pulls chunks from a socket: read ahead up to a bound, and not at all beyond it. */
import type { Socket } from 'node:net';

export class SocketReader {
  readonly #socket: Socket;
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #next = 0;
  #held = 0;
  #ended = false;
  #discarding = false;
  #waiter: (() => void) | undefined;

  /** Holds at most `limit` bytes, give or take one read. */
  constructor(socket: Socket, limit: number) {
    this.#socket = socket;
    this.#limit = limit;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    const ended = (): void => {
      this.#ended = true;
      this.wake();
    };
    socket.once('end', ended);
    socket.once('close', ended);
    // What broke is told by QEMU itself, in better words; here it is the end of the stream.
    socket.on('error', ended);
    socket.resume();
  }

  /** No chunk is left and none will come. */
  get ended(): boolean {
    return this.#ended && this.#next === this.#chunks.length;
  }

  read(): Buffer | undefined {
    const chunk = this.#chunks[this.#next];
    if (chunk === undefined) return undefined;
    this.#next += 1;
    this.#held -= chunk.length;
    if (this.#next === this.#chunks.length) {
      this.#chunks = [];
      this.#next = 0;
    }
    if (this.#held < this.#limit && this.#socket.isPaused()) this.#socket.resume();
    return chunk;
  }

  /** Resolves when there may be something new to see: a chunk, the end, or a call of `wake`. */
  more(): Promise<void> {
    if (this.#next < this.#chunks.length || this.#ended) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  wake(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.();
  }

  /** From now on everything that comes is thrown away. */
  discard(): void {
    this.#discarding = true;
    this.#chunks = [];
    this.#next = 0;
    this.#held = 0;
    this.#socket.resume();
  }

  #take(chunk: Buffer): void {
    if (this.#discarding) return;
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    if (this.#held >= this.#limit) this.#socket.pause();
    this.wake();
  }
}
