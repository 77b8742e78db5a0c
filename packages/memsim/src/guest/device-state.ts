/**
 * A simulated guest's devices and vCPUs as they cross the wire, and what goes with them. Opaque to the agents.
 *
 *     u32 magic, u32 kind, then by kind:
 *     hello     u32 pages, u32 vCPUs, u32 streams, 32 bytes fingerprint of the guest's definition
 *     missing   (u32 first, u32 count)*    pages that the destination has not, or not any more (post-copy)
 *     state     u32 registers, then them; f64 positions; u32 chains; 32 bytes SHA-256 of all before
 *
 * All little-endian.
 */
import { createHash } from 'node:crypto';
import { GuestError } from '@vmferry/engine/errors';
import { hash } from '../random.ts';

/** "VMSD" */
const MAGIC = 0x4453_4d56;
const Kind = { hello: 1, missing: 2, state: 3 } as const;
const HEAD_BYTES = 8;
const DIGEST_BYTES = 32;
/** Ranges of one `missing` message: far below the smallest frame that agents agree on. */
const MISSING_RANGES = 16 * 1024;
const REGISTERS = 4096;

export interface Shape {
  readonly pages: number;
  readonly vcpus: number;
  readonly streams: number;
}

export interface DeviceState {
  /** The machine's registers, 4096 words. */
  readonly registers: Uint32Array;
  /** See `GuestState`. */
  readonly positions: Float64Array;
  readonly chains: Uint32Array;
  /** What the source said that its state comes to. */
  readonly digest: Uint8Array;
}

export type Opaque =
  | { readonly kind: 'hello'; readonly shape: Shape; readonly fingerprint: string }
  | { readonly kind: 'missing'; readonly ranges: readonly (readonly [first: number, count: number])[] }
  | { readonly kind: 'state'; readonly state: DeviceState };

/** The registers that a guest of this seed has, always. */
export function registersOf(seed: number): Uint32Array {
  return Uint32Array.from({ length: REGISTERS }, (_, at) => hash(seed, 0x7265_6773, at));
}

export function encodeHello({ pages, vcpus, streams }: Shape, fingerprint: string): Uint8Array {
  const head = Buffer.alloc(HEAD_BYTES + 12);
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(Kind.hello, 4);
  head.writeUInt32LE(pages, 8);
  head.writeUInt32LE(vcpus, 12);
  head.writeUInt32LE(streams, 16);
  return Buffer.concat([head, Buffer.from(fingerprint, 'hex')]);
}

/** As many messages as it takes. `bits`: one bit a page, set for those that are missing. */
export function* encodeMissing(bits: Readonly<Uint32Array>): Generator<Uint8Array> {
  let ranges: number[] = [];
  const message = (): Uint8Array => {
    const words = Uint32Array.of(MAGIC, Kind.missing, ...ranges);
    ranges = [];
    return new Uint8Array(words.buffer);
  };
  let first = -1;
  for (let at = 0; at <= bits.length; at += 1) {
    const word = bits[at] ?? 0;
    // Whole words of one kind, which most are.
    if ((word === 0 && first < 0) || (word === 0xffff_ffff && first >= 0)) continue;
    for (let bit = 0; bit < 32; bit += 1) {
      const missing = ((word >>> bit) & 1) === 1;
      const page = at * 32 + bit;
      if (missing && first < 0) first = page;
      if (missing || first < 0) continue;
      ranges.push(first, page - first);
      first = -1;
      if (ranges.length === 2 * MISSING_RANGES) yield message();
    }
  }
  if (ranges.length > 0) yield message();
}

export function encodeState(state: Omit<DeviceState, 'digest'>): Uint8Array {
  const head = Buffer.alloc(HEAD_BYTES + 4);
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(Kind.state, 4);
  head.writeUInt32LE(state.registers.length, 8);
  const content = contentOf(state);
  return Buffer.concat([head, content, digestOf(state)]);
}

/** SHA-256 of the state's own bytes. */
export function digestOf(state: Omit<DeviceState, 'digest'>): Uint8Array {
  return createHash('sha256').update(contentOf(state)).digest();
}

function contentOf({ registers, positions, chains }: Omit<DeviceState, 'digest'>): Buffer {
  return Buffer.concat([bytesOf(registers), bytesOf(positions), bytesOf(chains)]);
}

/** A copy: the arrays may be shared memory. */
function bytesOf(array: Uint32Array | Float64Array): Buffer {
  const bytes = Buffer.alloc(array.byteLength);
  bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  return bytes;
}

/**
 * `shape` is that of the guest that is to take it.
 *
 * @throws GuestError E_STREAM
 */
export function decodeOpaque(bytes: Uint8Array, shape: Shape): Opaque {
  // Of its own and aligned.
  const copy = new Uint8Array(bytes);
  const view = new DataView(copy.buffer);
  if (copy.length < HEAD_BYTES || view.getUint32(0, true) !== MAGIC) throw malformed('it is none of ours');
  switch (view.getUint32(4, true)) {
    case Kind.hello:
      return decodeHello(copy, view);
    case Kind.missing:
      return { kind: 'missing', ranges: decodeRanges(copy, view, shape.pages) };
    case Kind.state:
      return { kind: 'state', state: decodeState(copy, view, shape) };
    default:
      throw malformed(`its kind is ${view.getUint32(4, true)}`);
  }
}

function decodeHello(copy: Uint8Array, view: DataView): Opaque {
  if (copy.length !== HEAD_BYTES + 12 + DIGEST_BYTES) throw malformed(`a hello has ${copy.length} bytes`);
  return {
    kind: 'hello',
    shape: {
      pages: view.getUint32(8, true),
      vcpus: view.getUint32(12, true),
      streams: view.getUint32(16, true),
    },
    fingerprint: Buffer.from(copy.subarray(HEAD_BYTES + 12)).toString('hex'),
  };
}

function decodeRanges(copy: Uint8Array, view: DataView, pages: number): (readonly [number, number])[] {
  if (copy.length % 8 !== 0) throw malformed(`a list of missing pages has ${copy.length} bytes`);
  const ranges: (readonly [number, number])[] = [];
  for (let at = HEAD_BYTES; at < copy.length; at += 8) {
    const first = view.getUint32(at, true);
    const count = view.getUint32(at + 4, true);
    if (count === 0 || first + count > pages) throw malformed(`${count} pages from ${first} on are missing`);
    ranges.push([first, count]);
  }
  return ranges;
}

function decodeState(copy: Uint8Array, view: DataView, { vcpus, streams }: Shape): DeviceState {
  const registers = copy.length < HEAD_BYTES + 4 ? 0 : view.getUint32(8, true);
  const positions = vcpus * (1 + streams);
  const chains = vcpus * streams;
  const wanted = HEAD_BYTES + 4 + registers * 4 + positions * 8 + chains * 4 + DIGEST_BYTES;
  if (registers !== REGISTERS || copy.length !== wanted) {
    throw malformed(`a device state has ${copy.length} bytes and ${registers} registers`);
  }
  let at = HEAD_BYTES + 4;
  const take = (length: number): ArrayBuffer => {
    const taken = copy.slice(at, at + length);
    at += length;
    return taken.buffer;
  };
  return {
    registers: new Uint32Array(take(registers * 4)),
    positions: new Float64Array(take(positions * 8)),
    chains: new Uint32Array(take(chains * 4)),
    digest: new Uint8Array(take(DIGEST_BYTES)),
  };
}

function malformed(why: string): GuestError {
  return new GuestError(
    'E_STREAM',
    `the simulated guest's state cannot be read: ${why}`,
    'use the same version of vmferry on both hosts',
  );
}
