import { ManagedProcess, within } from './process.ts';

/** A frame as far as an announcement needs it; addresses in the usual notation. */
export type Decoded =
  | {
      readonly kind: 'arp' | 'rarp';
      /** 1 request, 2 reply; 3 reverse request, 4 reverse reply. */
      readonly operation: number;
      readonly senderMac: string;
      readonly senderIp: string;
      readonly targetMac: string;
      readonly targetIp: string;
    }
  | {
      readonly kind: 'neighbour-advertisement';
      readonly sourceIp: string;
      readonly destinationIp: string;
      readonly target: string;
      readonly override: boolean;
      readonly solicited: boolean;
      /** From the target link-layer address option. */
      readonly targetMac: string | undefined;
    }
  | { readonly kind: 'other'; readonly etherType: number };

export type Frame = Decoded & {
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly sourceMac: string;
  readonly destinationMac: string;
  readonly vlan: number | undefined;
  readonly bytes: Buffer;
};

export interface CaptureOptions {
  /** As tcpdump takes it, such as `arp or rarp or icmp6`. */
  readonly filter?: string;
  /** Frames that arrive, that leave, or both (the default). */
  readonly direction?: 'in' | 'out' | 'inout';
}

/** tcpdump on one interface, read live. Keeps all frames. */
export class PacketCapture {
  readonly frames: Frame[] = [];
  readonly #process: ManagedProcess;
  readonly #listeners = new Set<() => void>();
  #held = Buffer.alloc(0);
  #headerRead = false;

  private constructor(process: ManagedProcess) {
    this.#process = process;
    process.child.stdout.on('data', (data: Buffer) => {
      this.#held = Buffer.concat([this.#held, data]);
      this.#parse();
      for (const listener of this.#listeners) listener();
    });
  }

  /** Resolves when it captures. */
  static async start(
    namespace: string,
    ifname: string,
    options: CaptureOptions = {},
  ): Promise<PacketCapture> {
    const argv = [
      'tcpdump',
      '-i',
      ifname,
      '-n',
      '-U',
      '--immediate-mode',
      '-Q',
      options.direction ?? 'inout',
    ];
    const filter = options.filter === undefined ? [] : [options.filter];
    const process = new ManagedProcess([...argv, '-w', '-', ...filter], { namespace });
    const capture = new PacketCapture(process);
    const listening = new Promise<void>((resolve) => {
      process.child.stderr.on('data', () => {
        if (process.stderr.includes('listening on')) resolve();
      });
    });
    const died = process.exited.then(() => Promise.reject(new Error(`tcpdump ended: ${process.stderr}`)));
    died.catch(() => {});
    try {
      await within(10_000, () => 'start of tcpdump', Promise.race([listening, died]));
    } catch (error) {
      process.kill();
      throw error;
    }
    return capture;
  }

  /** The first frame that matches, also of those already captured. */
  async waitFor(matches: (frame: Frame) => boolean, timeoutMs = 10_000): Promise<Frame> {
    let listener = () => {};
    const found = new Promise<Frame>((resolve) => {
      listener = () => {
        const frame = this.frames.find(matches);
        if (frame) resolve(frame);
      };
      this.#listeners.add(listener);
      listener();
    });
    const seen = () =>
      `no such frame among ${this.frames.length}: ${this.frames.map((f) => `${f.kind} ${f.sourceMac}`).join(', ')}`;
    try {
      return await within(timeoutMs, seen, found);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  /** Ends the capture; tcpdump hands over what it still has. */
  async stop(): Promise<readonly Frame[]> {
    await this.#process.stop();
    return this.frames;
  }

  #parse(): void {
    if (!this.#headerRead) {
      if (this.#held.length < 24) return;
      const magic = this.#held.readUInt32LE(0);
      if (magic !== 0xa1b2c3d4) throw new Error(`not a pcap stream: ${magic.toString(16)}`);
      this.#held = this.#held.subarray(24);
      this.#headerRead = true;
    }
    while (this.#held.length >= 16) {
      const length = this.#held.readUInt32LE(8);
      if (this.#held.length < 16 + length) return;
      const atMs = this.#held.readUInt32LE(0) * 1000 + this.#held.readUInt32LE(4) / 1000;
      this.frames.push(decodeFrame(Buffer.from(this.#held.subarray(16, 16 + length)), atMs));
      this.#held = this.#held.subarray(16 + length);
    }
  }
}

function mac(bytes: Buffer, at: number): string {
  return bytes.toString('hex', at, at + 6).replace(/(..)(?!$)/g, '$1:');
}

function ipv4(bytes: Buffer, at: number): string {
  return bytes.subarray(at, at + 4).join('.');
}

/** All eight groups without leading zeros, not shortened further: `fd00:10:0:0:0:0:0:2`. */
function ipv6(bytes: Buffer, at: number): string {
  return Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(at + i * 2).toString(16)).join(':');
}

function decodeFrame(bytes: Buffer, atMs: number): Frame {
  let etherType = bytes.readUInt16BE(12);
  let at = 14;
  let vlan: number | undefined;
  if (etherType === 0x8100) {
    vlan = bytes.readUInt16BE(14) & 0xfff;
    etherType = bytes.readUInt16BE(16);
    at = 18;
  }
  const common = { atMs, destinationMac: mac(bytes, 0), sourceMac: mac(bytes, 6), vlan, bytes };
  return { ...decodePayload(bytes, at, etherType), ...common };
}

function decodePayload(bytes: Buffer, at: number, etherType: number): Decoded {
  if ((etherType === 0x0806 || etherType === 0x8035) && bytes.length >= at + 28) {
    return {
      kind: etherType === 0x0806 ? 'arp' : 'rarp',
      operation: bytes.readUInt16BE(at + 6),
      senderMac: mac(bytes, at + 8),
      senderIp: ipv4(bytes, at + 14),
      targetMac: mac(bytes, at + 18),
      targetIp: ipv4(bytes, at + 24),
    };
  }
  if (etherType === 0x86dd && bytes.length >= at + 64 && bytes[at + 6] === 58 && bytes[at + 40] === 136) {
    const flags = bytes[at + 44] as number;
    const option = at + 64;
    return {
      kind: 'neighbour-advertisement',
      sourceIp: ipv6(bytes, at + 8),
      destinationIp: ipv6(bytes, at + 24),
      target: ipv6(bytes, at + 48),
      solicited: (flags & 0x40) !== 0,
      override: (flags & 0x20) !== 0,
      targetMac: bytes.length >= option + 8 && bytes[option] === 2 ? mac(bytes, option + 2) : undefined,
    };
  }
  return { kind: 'other', etherType };
}
