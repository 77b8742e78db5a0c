/**
 * Writes to QEMU's socket with two queues: what answers a fault goes ahead of everything that has not been
 * handed to the kernel yet. Little is handed to the kernel at a time, for what is there cannot be overtaken.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { Lane } from '@vmferry/engine/guest';
import type { LocalSocket } from '@vmferry/native/local-socket';
import type { SectionPieces } from './stream/encoder.ts';

interface Waiting {
  readonly send: (socket: LocalSocket) => Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Writes that are handed on at a time: the second waits on its thread while the first goes. */
const DEPTH = 2;
/** So much goes without a thread. Answers to faults are small, and a thread's wake-up is longer than their copy. */
export const AT_ONCE_BYTES = 80 * 1024;

export class SocketWriter {
  readonly #socket: LocalSocket;
  readonly #queues: { readonly express: Waiting[]; readonly bulk: Waiting[] } = { express: [], bulk: [] };
  #writing = 0;
  #broken: Error | undefined;

  constructor(socket: LocalSocket) {
    this.#socket = socket;
  }

  /** Resolves when the kernel has taken the bytes; they must stay until then. */
  write(bytes: Uint8Array, lane: Lane): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken);
    if (bytes.length === 0) return Promise.resolve();
    const atOnce = bytes.length <= AT_ONCE_BYTES;
    return this.#enqueue((socket) => (atOnce ? socket.sendSoon(bytes) : socket.send(bytes)), lane);
  }

  /** As `write`, of a section that lies in pieces. */
  writePieces({ framing, content, lengths }: SectionPieces, lane: Lane): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken);
    return this.#enqueue((socket) => socket.sendInterleaved(framing, content, lengths), lane);
  }

  #enqueue(send: Waiting['send'], lane: Lane): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queues[lane].push({ send, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    if (this.#writing >= DEPTH || this.#broken) return;
    const job = this.#queues.express.shift() ?? this.#queues.bulk.shift();
    if (!job) return;
    this.#writing += 1;
    job.send(this.#socket).then(
      () => {
        this.#writing -= 1;
        job.resolve();
        this.#next();
      },
      (cause: unknown) => {
        this.#writing -= 1;
        job.reject(this.#gone(cause));
        this.#fail(cause);
      },
    );
  }

  #gone(cause: unknown): GuestError {
    return new GuestError(
      'E_GUEST_FAILED',
      `the destination's QEMU takes no more of the stream${cause instanceof Error ? `: ${cause.message}` : ''}`,
      "look into QEMU's log on the destination host",
      { cause },
    );
  }

  #fail(cause: unknown): void {
    this.#broken ??= this.#gone(cause);
    for (const queue of [this.#queues.express, this.#queues.bulk]) {
      for (const job of queue.splice(0)) job.reject(this.#broken);
    }
  }
}
