/**
 * A UNIX stream socket for much traffic: system calls and copies happen on threads of its own, one for each
 * direction, into and out of the caller's own buffers.
 */
import { addon, type NativeLocalSocket, type Settle } from './addon.ts';
import { boundsError, NativeError, nativeFailure, nativeThrown } from './errors.ts';

const maxPathBytes = 107;
/** Lets the reader go on while the next piece is on its way to the kernel. */
const defaultSendBufferBytes = 160 * 1024;

export class LocalSocket {
  readonly #socket: NativeLocalSocket;
  #closed = false;

  /**
   * `sendBufferBytes` is what the kernel takes before a send has to wait (it doubles it for its own needs).
   *
   * Throws `E_NATIVE_SYSTEM` (ENOENT, ECONNREFUSED, EACCES: nobody listens there for us).
   */
  static connect(path: string, { sendBufferBytes = defaultSendBufferBytes } = {}): LocalSocket {
    return new LocalSocket(open(path, false, sendBufferBytes));
  }

  private constructor(socket: NativeLocalSocket) {
    this.#socket = socket;
  }

  /** @internal a listener's first connection */
  static adopt(socket: NativeLocalSocket): LocalSocket {
    socket.adopt();
    return new LocalSocket(socket);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Reads into `buffer`, at least one byte, and after that whatever comes until there are `atLeast` bytes or
   * nothing came for `lingerMs` (at most 1000). Resolves with the number of bytes; 0 is the end of the stream,
   * or that the socket was closed here. One call at a time.
   */
  receive(buffer: Uint8Array, atLeast: number, lingerMs: number): Promise<number> {
    return this.#run((settle) => this.#socket.receive(buffer, atLeast, lingerMs, settle));
  }

  /** Resolves when the kernel has all of it. Calls go out in their order; two under way are worth it. */
  async send(bytes: Uint8Array): Promise<void> {
    await this.#run((settle) => this.#socket.send(bytes, settle));
  }

  /**
   * `send` of bytes that lie in two places, without joining them first: `lengths` takes turns, so many bytes of
   * `first`, so many of `second`, and so on (0 is allowed). The lengths must add up to exactly the two arrays, or
   * nothing is sent (`E_NATIVE_BOUNDS`). They are read before this returns, the two arrays until it resolves.
   */
  async sendInterleaved(first: Uint8Array, second: Uint8Array, lengths: Uint32Array): Promise<void> {
    await this.#run((settle) => this.#socket.sendInterleaved(first, second, lengths, settle));
  }

  /**
   * Sends a little at once, on the calling thread, where a thread's wake-up would cost more than the copy.
   * What the kernel does not take now goes the way of `send`, which the result is then.
   */
  sendSoon(bytes: Uint8Array): Promise<void> {
    try {
      const sent = this.#socket.trySend(bytes);
      return sent === bytes.length ? Promise.resolve() : this.send(bytes.subarray(sent));
    } catch (thrown) {
      return Promise.reject(nativeThrown(thrown));
    }
  }

  /**
   * The process at the other end, as it was when it connected (or began to listen), in this process's own
   * numbering. Undefined where the system does not tell, or when the socket was closed.
   */
  get peerPid(): number | undefined {
    if (this.#closed) return undefined;
    const pid = this.#socket.peerPid();
    return pid > 0 ? pid : undefined;
  }

  /** Any number of times. What waits on it ends: `receive` with 0, `send` with `E_NATIVE_CLOSED`. */
  close(): void {
    this.#closed = true;
    this.#socket.close();
  }

  #run(start: (settle: Settle) => void): Promise<number> {
    if (this.#closed) return Promise.reject(new NativeError('E_NATIVE_CLOSED', 'the local socket is closed'));
    return job(start);
  }
}

/** A listening socket that takes one connection. */
export class LocalListener {
  readonly #socket: NativeLocalSocket;

  /** Throws `E_NATIVE_SYSTEM` (EADDRINUSE, EACCES, ENOENT). */
  constructor(path: string) {
    this.#socket = open(path, true, defaultSendBufferBytes);
  }

  /** The first connection; undefined when the listener was closed before. */
  async accept(): Promise<LocalSocket | undefined> {
    const came = await job((settle) => this.#socket.accept(settle));
    return came === 1 ? LocalSocket.adopt(this.#socket) : undefined;
  }

  /** Only before `accept` has brought a connection: that is closed by itself. */
  close(): void {
    this.#socket.close();
  }
}

function open(path: string, listen: boolean, sendBufferBytes: number): NativeLocalSocket {
  if (typeof path !== 'string') throw boundsError('path must be a string');
  const bytes = Buffer.byteLength(path);
  if (bytes === 0 || bytes > maxPathBytes || path.includes('\0')) {
    throw boundsError(`a socket's path has 1 to ${maxPathBytes} bytes, not ${bytes}`);
  }
  try {
    return new (addon().LocalSocket)(path, listen, sendBufferBytes);
  } catch (thrown) {
    throw nativeThrown(thrown, path);
  }
}

function job(start: (settle: Settle) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    try {
      start((code, value, _1, _2, _3, message, errno) => {
        if (code === 0) resolve(value);
        else reject(nativeFailure(code, message ?? '', errno ?? 0));
      });
    } catch (thrown) {
      reject(nativeThrown(thrown));
    }
  });
}
