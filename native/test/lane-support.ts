import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { FrameLane, type FrameLaneOptions } from '@vmferry/native/frame-lane';

export const Op = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface FrameParts {
  readonly opcode: number;
  readonly payload?: Uint8Array;
  readonly final?: boolean;
  readonly reserved?: number;
  readonly mask?: Uint8Array | undefined;
  /** Another length than the payload's. */
  readonly claims?: bigint;
}

/** A frame as RFC 6455 has it, or as it must not be. */
export function frame({
  opcode,
  payload = Buffer.alloc(0),
  final = true,
  reserved = 0,
  mask,
  claims,
}: FrameParts): Buffer {
  const length = claims ?? BigInt(payload.length);
  const first = (final ? 0x80 : 0) | (reserved << 4) | opcode;
  const bit = mask === undefined ? 0 : 0x80;
  const head =
    length < 126n
      ? Buffer.of(first, bit | Number(length))
      : length < 65_536n
        ? Buffer.of(first, bit | 126, Number(length >> 8n), Number(length & 0xffn))
        : Buffer.concat([Buffer.of(first, bit | 127), bigEndian(length)]);
  if (mask === undefined) return Buffer.concat([head, payload]);
  return Buffer.concat([head, mask, payload.map((byte, i) => byte ^ mask[i % 4]!)]);
}

function bigEndian(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

export const NO_MASK = Buffer.alloc(4);

export function closePayload(code: number, reason = ''): Buffer {
  return Buffer.concat([Buffer.of(code >> 8, code & 0xff), Buffer.from(reason)]);
}

/** Two ends of a connection over loopback. */
export async function tcpPair(): Promise<[Socket, Socket]> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [[far]] = (await Promise.all([once(server, 'connection'), once(near, 'connect')])) as [[Socket], []];
  near.setNoDelay();
  far.setNoDelay();
  server.close();
  return [near, far];
}

function descriptorOf(socket: Socket): number {
  return Reflect.get(Reflect.get(socket, '_handle') as object, 'fd') as number;
}

export interface End {
  readonly code: number;
  readonly reason: string;
}

/** A lane with all that it tells. Keeps messages until they are taken. */
export class TestLane {
  readonly lane: FrameLane;
  readonly messages: { readonly message: Buffer; readonly isBinary: boolean }[] = [];
  readonly pings: string[] = [];
  readonly pongs: string[] = [];
  readonly violations: { readonly closeCode: number; readonly message: string }[] = [];
  readonly failures: { readonly code: string; readonly errno: string | undefined }[] = [];
  readonly ended: Promise<End>;
  #changed: (() => void)[] = [];

  /** Takes the socket's descriptor and lets the socket go. */
  constructor(socket: Socket, options: Partial<FrameLaneOptions> = {}) {
    const changed = () => {
      for (const look of this.#changed.splice(0)) look();
    };
    let end: (end: End) => void;
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.lane = new FrameLane(
      { fd: descriptorOf(socket), role: 'server', maxMessageBytes: 65_536, maxBuffers: 4, ...options },
      {
        onMessage: (message, isBinary) => {
          this.messages.push({ message, isBinary });
          changed();
        },
        onPing: (payload) => {
          this.pings.push(payload.toString());
          changed();
        },
        onPong: (payload) => {
          this.pongs.push(payload.toString());
          changed();
        },
        onViolation: (closeCode, message) => this.violations.push({ closeCode, message }),
        onFailure: ({ code, errno }) => this.failures.push({ code, errno }),
        onEnd: (code, reason) => end({ code, reason: reason.toString() }),
      },
    );
    socket.destroy();
  }

  /** Resolves when it holds. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  /** The next message, copied and recycled. */
  async take(): Promise<{ readonly content: Buffer; readonly isBinary: boolean }> {
    await this.until(() => this.messages.length > 0);
    const { message, isBinary } = this.messages.shift()!;
    const content = Buffer.from(message);
    this.lane.recycle(message);
    return { content, isBinary };
  }

  send(bytes: Uint8Array, isBinary = true): Promise<void> {
    return new Promise((resolve, reject) =>
      this.lane.send(bytes, isBinary, (error) => (error ? reject(error) : resolve())),
    );
  }
}

/** A lane and the bare socket of its peer. */
export async function laneToRaw(
  options: Partial<FrameLaneOptions> = {},
): Promise<{ near: TestLane; peer: Socket }> {
  const [socket, peer] = await tcpPair();
  return { near: new TestLane(socket, options), peer };
}

export async function lanePair(
  options: Partial<FrameLaneOptions> = {},
): Promise<{ client: TestLane; server: TestLane }> {
  const [near, far] = await tcpPair();
  return {
    client: new TestLane(near, { ...options, role: 'client' }),
    server: new TestLane(far, { ...options, role: 'server' }),
  };
}

/** What the peer reads, as far as it is asked for. */
export class RawReader {
  readonly #socket: Socket;
  #have = Buffer.alloc(0);
  #ended = false;
  #look: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => {
      this.#have = Buffer.concat([this.#have, chunk]);
      this.#look();
    });
    socket.on('close', () => {
      this.#ended = true;
      this.#look();
    });
    socket.on('end', () => {
      this.#ended = true;
      this.#look();
    });
    socket.on('error', () => {});
  }

  async bytes(count: number): Promise<Buffer> {
    while (this.#have.length < count && !this.#ended) await this.#more();
    const taken = this.#have.subarray(0, count);
    this.#have = this.#have.subarray(count);
    return taken;
  }

  /** Everything up to the end of the stream. */
  async rest(): Promise<Buffer> {
    while (!this.#ended) await this.#more();
    return this.#have;
  }

  get socket(): Socket {
    return this.#socket;
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#look = resolve;
    });
  }
}
