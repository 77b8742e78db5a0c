/**
 * Writes to QEMU's socket with two queues: what answers a fault goes ahead of everything that has not been
 * handed to the kernel yet. Little is handed to the kernel at a time, for what is there cannot be overtaken.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { Lane } from '@vmferry/engine/guest';
import type { LocalSocket } from '@vmferry/native/local-socket';

interface Waiting {
  readonly bytes: Uint8Array;
  readonly pooled: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

const SCRATCH_BYTES = 1056 * 1024;
/** Writes that are handed on at a time: the second waits on its thread while the first goes. */
const DEPTH = 2;
/** Answers to faults are small, and a thread's wake-up is longer than their copy. */
const AT_ONCE_BYTES = 80 * 1024;
const KEEP_SCRATCH = 6;

export class SocketWriter {
  readonly #socket: LocalSocket;
  readonly #queues: { readonly express: Waiting[]; readonly bulk: Waiting[] } = { express: [], bulk: [] };
  readonly #scratch: Uint8Array[] = [];
  #writing = 0;
  #broken: Error | undefined;

  constructor(socket: LocalSocket) {
    this.#socket = socket;
  }

  /** Memory to encode into, given back by the `write` that is told so. */
  scratch(size: number): Uint8Array {
    if (size > SCRATCH_BYTES) return Buffer.allocUnsafeSlow(size);
    return this.#scratch.pop() ?? Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  }

  /** Resolves when the kernel has taken the bytes. `pooled`: the memory came from `scratch`. */
  write(bytes: Uint8Array, lane: Lane, pooled = false): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken);
    if (bytes.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#queues[lane].push({ bytes, pooled, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    if (this.#writing >= DEPTH || this.#broken) return;
    const job = this.#queues.express.shift() ?? this.#queues.bulk.shift();
    if (!job) return;
    this.#writing += 1;
    const small = job.bytes.length <= AT_ONCE_BYTES;
    (small ? this.#socket.sendSoon(job.bytes) : this.#socket.send(job.bytes)).then(
      () => {
        this.#writing -= 1;
        if (job.pooled) this.#giveBack(job.bytes);
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

  #giveBack(bytes: Uint8Array): void {
    if (bytes.buffer.byteLength === SCRATCH_BYTES && this.#scratch.length < KEEP_SCRATCH) {
      this.#scratch.push(Buffer.from(bytes.buffer));
    }
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
