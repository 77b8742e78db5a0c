/**
 * Frames. Every WebSocket message is one: a header of 64 bytes, then the payload, in one buffer. Integers
 * are little-endian.
 *
 *      0  u8[3] "VMF"         24  u32 epoch            48  u32 payload hash, high half
 *      3  u8    layout, 1     28  u32 round            52  u32 payload hash, low half
 *      4  u8    kind          32  u32 block            56  u32 reserved, 0
 *      5  u8    codec         36  u32 count            60  u32 header check
 *      6  u16   flags         40  u32 rawBytes
 *      8  u64   sequence      44  u32 payloadBytes
 *     16  u64   acknowledgement
 *
 * The payload hash is XXH3-64 of the payload; the header check is the low half of XXH3-64 of the 60 bytes
 * before it. A stream numbers its frames from 1. Number 0 is of no stream: acknowledgements, and the control
 * frames of the handshake, which begin every connection and are never sent again.
 */
import { checksumInto } from '@vmferry/native/kernels';
import { WireError } from './errors.ts';

export const HEADER_BYTES = 64;
const CHECK_OFFSET = 60;
/** "VMF" and the layout's number, read as a little-endian u32. */
const MAGIC = 0x01464d56;
const MAGIC_MASK = 0x00ffffff;
const TWO_32 = 0x1_0000_0000;

export const FrameKind = { control: 1, pages: 2, opaque: 3, ack: 4 } as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

export const Codec = { none: 0, lz4: 1 } as const;
export type Codec = (typeof Codec)[keyof typeof Codec];

export const FrameFlag = {
  /** Answers a page fault. */
  express: 1,
} as const;
const KNOWN_FLAGS = FrameFlag.express;

/** A u64 as two u32. */
export interface Hash {
  readonly hi: number;
  readonly lo: number;
}

/** What the sender of a frame chooses. All are u32 unless said otherwise. */
export interface FrameFields {
  readonly kind: FrameKind;
  /** Bits of `FrameFlag`. */
  readonly flags: number;
  readonly codec: Codec;
  /** How many barriers the source had sent before. */
  readonly epoch: number;
  readonly round: number;
  readonly block: number;
  /** Pages in the payload. */
  readonly count: number;
  /** Size of the payload before compression. */
  readonly rawBytes: number;
  readonly payloadHash: Hash;
}

export interface FrameHeader extends FrameFields {
  /** Below 2^53. */
  readonly sequence: number;
  /** The highest sequence of the other direction up to which everything was consumed. Below 2^53. */
  readonly acknowledgement: number;
  readonly payloadBytes: number;
}

/** A frame as it was received. */
export interface Frame extends FrameHeader {
  /** A view into the message. */
  readonly payload: Uint8Array;
  /** Header and payload. */
  readonly frameBytes: number;
}

/** A frame to be sent. The payload is the buffer's from `HEADER_BYTES` on; the header is written into it. */
export interface OutgoingFrame extends FrameFields {
  readonly buffer: Uint8Array;
  /** Called exactly once, when the peer has acknowledged the frame or the link has closed. */
  readonly release?: () => void;
}

export interface FrameLimits {
  /** Header and payload. */
  readonly maxFrameBytes: number;
  readonly maxRawBytes: number;
  readonly maxCount: number;
}

const MIB = 1024 * 1024;

/** One huge page of 2 MiB fits with room to spare. */
export const DEFAULT_FRAME_LIMITS: FrameLimits = {
  maxFrameBytes: 4 * MIB + 64 * 1024,
  maxRawBytes: 4 * MIB,
  maxCount: 65_536,
};

const hashOut = new Uint32Array(2);

/** XXH3-64 of `payload`. */
export function hashPayload(payload: Uint8Array): Hash {
  checksumInto(payload, 0, hashOut);
  return { hi: hashOut[0]!, lo: hashOut[1]! };
}

function headerCheck(message: Uint8Array): number {
  checksumInto(message.subarray(0, CHECK_OFFSET), 0, hashOut);
  return hashOut[1]!;
}

function checkU32(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= TWO_32) {
    throw new WireError('E_LIMIT', `a frame's ${name} must be a 32-bit number, not ${value}`);
  }
}

function setU64(view: DataView, offset: number, name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new WireError('E_LIMIT', `a frame's ${name} must be a whole number below 2^53, not ${value}`);
  }
  view.setUint32(offset, value % TWO_32, true);
  view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
}

function getU64(view: DataView, offset: number, name: string): number {
  const value = view.getUint32(offset + 4, true) * TWO_32 + view.getUint32(offset, true);
  if (value > Number.MAX_SAFE_INTEGER) {
    throw new WireError('E_FRAME', `the frame's ${name} is above 2^53`);
  }
  return value;
}

/** Writes the first 64 bytes of `target`. Throws `WireError` (`E_LIMIT`) for numbers that do not fit. */
export function encodeHeader(target: Uint8Array, header: FrameHeader): void {
  if (target.length < HEADER_BYTES) {
    throw new WireError('E_LIMIT', `a header needs ${HEADER_BYTES} bytes, the buffer has ${target.length}`);
  }
  for (const name of ['epoch', 'round', 'block', 'count', 'rawBytes', 'payloadBytes'] as const) {
    checkU32(name, header[name]);
  }
  const view = new DataView(target.buffer, target.byteOffset, HEADER_BYTES);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, header.kind);
  view.setUint8(5, header.codec);
  view.setUint16(6, header.flags, true);
  setU64(view, 8, 'sequence', header.sequence);
  setU64(view, 16, 'acknowledgement', header.acknowledgement);
  view.setUint32(24, header.epoch, true);
  view.setUint32(28, header.round, true);
  view.setUint32(32, header.block, true);
  view.setUint32(36, header.count, true);
  view.setUint32(40, header.rawBytes, true);
  view.setUint32(44, header.payloadBytes, true);
  view.setUint32(48, header.payloadHash.hi, true);
  view.setUint32(52, header.payloadHash.lo, true);
  view.setUint32(56, 0, true);
  view.setUint32(CHECK_OFFSET, headerCheck(target), true);
}

function isKind(kind: number): kind is FrameKind {
  return kind >= FrameKind.control && kind <= FrameKind.ack;
}

function isCodec(codec: number): codec is Codec {
  return codec === Codec.none || codec === Codec.lz4;
}

function within(name: string, value: number, limit: number): void {
  if (value > limit) {
    throw new WireError('E_LIMIT', `the frame's ${name} is ${value}, and ${limit} is the limit`);
  }
}

/**
 * Reads a message as a frame and validates everything but the payload's hash (see `verifyPayload`).
 * Throws `WireError`: `E_FRAME` for what is no frame, `E_VERSION` for another layout, `E_LIMIT` for what is
 * too large.
 */
export function decodeFrame(message: Uint8Array, limits: FrameLimits): Frame {
  if (message.length < HEADER_BYTES) {
    throw new WireError('E_FRAME', `a message of ${message.length} bytes is too short for a frame`);
  }
  within('size', message.length, limits.maxFrameBytes);
  const view = new DataView(message.buffer, message.byteOffset, HEADER_BYTES);
  const magic = view.getUint32(0, true);
  if ((magic & MAGIC_MASK) !== (MAGIC & MAGIC_MASK)) {
    throw new WireError('E_FRAME', 'the message does not begin like a frame');
  }
  if (magic !== MAGIC) {
    throw new WireError('E_VERSION', `the frame has layout ${magic >>> 24}, this side knows layout 1`);
  }
  if (view.getUint32(CHECK_OFFSET, true) !== headerCheck(message)) {
    throw new WireError('E_FRAME', "the frame's header does not match its check");
  }
  const kind = view.getUint8(4);
  if (!isKind(kind)) throw new WireError('E_FRAME', `frames of kind ${kind} are not known`);
  const codec = view.getUint8(5);
  if (!isCodec(codec)) throw new WireError('E_FRAME', `codec ${codec} is not known`);
  const flags = view.getUint16(6, true);
  if ((flags & ~KNOWN_FLAGS) !== 0 || view.getUint32(56, true) !== 0) {
    throw new WireError('E_FRAME', `the frame uses flags that are not known (${flags.toString(16)})`);
  }
  const payloadBytes = view.getUint32(44, true);
  if (payloadBytes !== message.length - HEADER_BYTES) {
    throw new WireError(
      'E_FRAME',
      `the header promises ${payloadBytes} bytes of payload, the message has ${message.length - HEADER_BYTES}`,
    );
  }
  const sequence = getU64(view, 8, 'sequence');
  if (
    kind === FrameKind.ack
      ? sequence !== 0 || payloadBytes !== 0
      : sequence === 0 && kind !== FrameKind.control
  ) {
    throw new WireError('E_FRAME', `a frame of kind ${kind} cannot have the sequence ${sequence}`);
  }
  const count = view.getUint32(36, true);
  within('count', count, limits.maxCount);
  const rawBytes = view.getUint32(40, true);
  within('raw size', rawBytes, limits.maxRawBytes);
  return {
    kind,
    flags,
    codec,
    sequence,
    acknowledgement: getU64(view, 16, 'acknowledgement'),
    epoch: view.getUint32(24, true),
    round: view.getUint32(28, true),
    block: view.getUint32(32, true),
    count,
    rawBytes,
    payloadBytes,
    payloadHash: { hi: view.getUint32(48, true), lo: view.getUint32(52, true) },
    payload: message.subarray(HEADER_BYTES),
    frameBytes: message.length,
  };
}

/** Throws `WireError` (`E_CHECKSUM`) unless the payload is what the sender hashed. */
export function verifyPayload(frame: Frame): void {
  const { hi, lo } = hashPayload(frame.payload);
  if (hi !== frame.payloadHash.hi || lo !== frame.payloadHash.lo) {
    throw new WireError('E_CHECKSUM', `the payload of frame ${frame.sequence} does not match its hash`);
  }
}

/** A frame around a copy of `payload`, for what is small or was not built in a frame's buffer. */
export function frameAround(
  kind: typeof FrameKind.control | typeof FrameKind.opaque,
  payload: Uint8Array,
  epoch = 0,
): OutgoingFrame {
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  buffer.set(payload, HEADER_BYTES);
  return {
    kind,
    flags: 0,
    codec: Codec.none,
    epoch,
    round: 0,
    block: 0,
    count: 0,
    rawBytes: payload.length,
    payloadHash: hashPayload(payload),
    buffer,
  };
}
