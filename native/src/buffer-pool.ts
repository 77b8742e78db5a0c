import { boundsError, NativeError } from './errors.ts';

export interface BufferPoolOptions {
  /** Size of every buffer. */
  readonly bufferBytes: number;
  /** The pool never holds more buffers than this, lent out or not. */
  readonly maxBuffers: number;
}

/** A buffer on loan. */
export interface PooledBuffer {
  /** All of the buffer, with whatever its last user left in it. Throws `E_NATIVE_CLOSED` once released. */
  readonly bytes: Buffer;
  /** Gives the buffer back; a second time throws `E_NATIVE_CLOSED`. Not while an operation uses it. */
  release(): void;
}

interface Waiter {
  readonly resolve: (buffer: PooledBuffer) => void;
  readonly reject: (reason: NativeError) => void;
}

/**
 * Buffers with a bounded total: `bufferBytes * maxBuffers` bytes at most. They are made on first need and
 * used again; who asks while all are lent waits in line.
 */
export class BufferPool {
  readonly bufferBytes: number;
  readonly maxBuffers: number;
  readonly #idle: Buffer[] = [];
  readonly #waiters: Waiter[] = [];
  #made = 0;
  #inUse = 0;
  #closed = false;

  constructor({ bufferBytes, maxBuffers }: BufferPoolOptions) {
    if (!Number.isSafeInteger(bufferBytes) || bufferBytes < 1) {
      throw boundsError(`bufferBytes must be a positive whole number, not ${bufferBytes}`);
    }
    if (!Number.isSafeInteger(maxBuffers) || maxBuffers < 1) {
      throw boundsError(`maxBuffers must be a positive whole number, not ${maxBuffers}`);
    }
    this.bufferBytes = bufferBytes;
    this.maxBuffers = maxBuffers;
  }

  /** Buffers on loan. */
  get inUse(): number {
    return this.#inUse;
  }

  /** Calls of `acquire` that stand in line. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /** Bytes that the pool holds now. */
  get allocatedBytes(): number {
    return this.#made * this.bufferBytes;
  }

  /** Resolves as soon as a buffer is free, first come, first served. Rejects with `E_NATIVE_CLOSED`. */
  acquire(): Promise<PooledBuffer> {
    if (this.#closed) return Promise.reject(closed());
    const buffer = this.tryAcquire();
    if (buffer !== undefined) return Promise.resolve(buffer);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
  }

  /** A buffer if one is free now. Throws `E_NATIVE_CLOSED` on a closed pool. */
  tryAcquire(): PooledBuffer | undefined {
    if (this.#closed) throw closed();
    const idle = this.#idle.pop();
    if (idle !== undefined) return this.#lend(idle);
    if (this.#made === this.maxBuffers) return undefined;
    // Of its own, not from Node's shared slab, so that it can be as long-lived as the pool.
    const made = Buffer.allocUnsafeSlow(this.bufferBytes);
    this.#made += 1;
    return this.#lend(made);
  }

  /** Rejects all who wait, and whoever asks from now on. Buffers on loan stay good until released. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#made -= this.#idle.length;
    this.#idle.length = 0;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(closed());
  }

  #lend(bytes: Buffer): PooledBuffer {
    this.#inUse += 1;
    return new Loan(bytes, (back) => this.#takeBack(back));
  }

  #takeBack(bytes: Buffer): void {
    this.#inUse -= 1;
    if (this.#closed) {
      this.#made -= 1;
      return;
    }
    const next = this.#waiters.shift();
    if (next === undefined) this.#idle.push(bytes);
    else next.resolve(this.#lend(bytes));
  }
}

class Loan implements PooledBuffer {
  #bytes: Buffer | undefined;
  readonly #giveBack: (bytes: Buffer) => void;

  constructor(bytes: Buffer, giveBack: (bytes: Buffer) => void) {
    this.#bytes = bytes;
    this.#giveBack = giveBack;
  }

  get bytes(): Buffer {
    if (this.#bytes === undefined) throw released();
    return this.#bytes;
  }

  release(): void {
    const bytes = this.#bytes;
    if (bytes === undefined) throw released();
    this.#bytes = undefined;
    this.#giveBack(bytes);
  }
}

function closed(): NativeError {
  return new NativeError('E_NATIVE_CLOSED', 'the buffer pool is closed');
}

function released(): NativeError {
  return new NativeError('E_NATIVE_CLOSED', 'the buffer was released already');
}
