import { addon, type NativePacketSocket } from './addon.ts';
import { boundsError, NativeError, nativeFailure, nativeThrown } from './errors.ts';

/** Header without payload. */
const minFrameBytes = 14;
/** 1500 bytes of payload, the header and one VLAN tag. */
const maxFrameBytes = 1518;
/** As long as a frame can get on its way through a veth pair (segmentation offload). */
const receiveBytes = 65_550;
const maxTimeoutMs = 60_000;

export interface PacketSocketOptions {
  /** Take frames in as well, for `poll`. Default false: nothing queues up that nobody reads. */
  readonly receive?: boolean;
}

/** Sends raw Ethernet frames on one interface. Source: packet(7). */
export class PacketSocket {
  readonly interfaceName: string;
  readonly interfaceIndex: number;
  /** Bytes of payload that a frame may carry on this interface, at the time of opening. */
  readonly mtu: number;
  /** "52:54:00:12:34:56"; zeros on the loopback interface. */
  readonly hardwareAddress: string;
  readonly #socket: NativePacketSocket;
  readonly #receives: boolean;
  #closed = false;

  /** Use `openPacketSocket`. */
  constructor(interfaceName: string, options: PacketSocketOptions = {}) {
    const bytes = Buffer.byteLength(interfaceName);
    if (bytes < 1 || bytes > 15 || interfaceName.includes('\0')) {
      throw boundsError(`an interface name has 1 to 15 bytes: '${interfaceName}'`);
    }
    this.#receives = options.receive === true;
    const { PacketSocket: Native } = addon();
    try {
      this.#socket = new Native(interfaceName, this.#receives);
    } catch (thrown) {
      throw nativeThrown(thrown, `packet socket on '${interfaceName}'`);
    }
    this.interfaceName = interfaceName;
    this.interfaceIndex = this.#socket.interfaceIndex;
    this.mtu = this.#socket.mtu;
    this.hardwareAddress = this.#socket.hardwareAddress;
  }

  /**
   * Hands one Ethernet frame (14 to 1518 bytes, from the destination's address on, without check sequence)
   * to the interface. Throws `E_NATIVE_SYSTEM` (ENETDOWN, ENXIO: interface down or gone; ENOBUFS, EAGAIN: its queue
   * is full; EMSGSIZE: longer than the MTU allows) or `E_NATIVE_CLOSED`.
   */
  send(frame: Uint8Array): void {
    if (!(frame instanceof Uint8Array)) throw boundsError('frame must be a Uint8Array');
    if (frame.length < minFrameBytes || frame.length > maxFrameBytes) {
      throw boundsError(
        `an Ethernet frame has ${minFrameBytes} to ${maxFrameBytes} bytes, not ${frame.length}`,
      );
    }
    try {
      this.#socket.send(frame);
    } catch (thrown) {
      throw nativeThrown(thrown, `packet socket on '${this.interfaceName}'`);
    }
  }

  /**
   * The next frame that came in from outside, or undefined when none came in `timeoutMs` (at most 60000) or
   * the socket was closed meanwhile. Needs `receive: true`. Holds one of libuv's few threads while it waits:
   * made for tests and diagnosis.
   */
  async poll(timeoutMs: number): Promise<Uint8Array | undefined> {
    if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 0 || timeoutMs > maxTimeoutMs) {
      throw boundsError(`timeoutMs must be a whole number from 0 to ${maxTimeoutMs}, not ${timeoutMs}`);
    }
    if (this.#closed) throw new NativeError('E_NATIVE_CLOSED', 'the packet socket is closed');
    if (!this.#receives) throw boundsError('the packet socket was opened without receive: true');
    const buffer = new Uint8Array(receiveBytes);
    const length = await new Promise<number>((resolve, reject) => {
      this.#socket.receive(buffer, timeoutMs, (code, size, _1, _2, _3, message, errno) => {
        if (code === 0) resolve(size);
        else reject(nativeFailure(code, message ?? '', errno ?? 0));
      });
    });
    return length === 0 ? undefined : buffer.slice(0, length);
  }

  /** Any number of times. A `poll` that waits resolves with undefined. */
  close(): void {
    this.#closed = true;
    this.#socket.close();
  }
}

/**
 * Opens a packet socket on a network interface. Throws `NativeError`: `E_NATIVE_SYSTEM` with errno ENODEV (no such
 * interface), EPERM (needs CAP_NET_RAW) or EOPNOTSUPP (not an Ethernet interface).
 */
export function openPacketSocket(interfaceName: string, options: PacketSocketOptions = {}): PacketSocket {
  return new PacketSocket(interfaceName, options);
}
