/**
 * MessagePack within bounds. The structure of received bytes is walked before they are decoded: a decoder
 * that believes a length allocates it, and a message of five bytes can claim an array of 2^32.
 */
import { Packr, Unpackr } from 'msgpackr';
import { WireError } from './errors.ts';

export const MAX_PACKED_BYTES = 1024 * 1024;
const MAX_DEPTH = 24;

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, copyBuffers: true });

/** Throws `WireError` (`E_LIMIT`) when the message is larger than a peer takes. */
export function pack(value: unknown): Uint8Array {
  const packed = packr.pack(value);
  if (packed.length > MAX_PACKED_BYTES) {
    throw new WireError('E_LIMIT', `a control message of ${packed.length} bytes is too large`);
  }
  return packed;
}

const malformed = (why: string) => new WireError('E_MESSAGE', `the control message is malformed: ${why}`);

/** What follows a value's first byte. The size (bytes, values or entries) is known, or in so many bytes. */
type Shape =
  | { readonly is: 'bytes' | 'array' | 'map'; readonly lengthBytes: 0; readonly size: number }
  | { readonly is: 'bytes' | 'array' | 'map'; readonly lengthBytes: 1 | 2 | 4 };

const fixed = (size: number, is: Shape['is'] = 'bytes'): Shape => ({ is, lengthBytes: 0, size });
const sized = (lengthBytes: 1 | 2 | 4, is: Shape['is'] = 'bytes'): Shape => ({ is, lengthBytes });

/** 0xc0 to 0xdf. Extensions (0xc7 to 0xc9, 0xd4 to 0xd8) and 0xc1 are not accepted. */
const shapes = new Map<number, Shape>([
  [0xc0, fixed(0)],
  [0xc2, fixed(0)],
  [0xc3, fixed(0)],
  [0xc4, sized(1)],
  [0xc5, sized(2)],
  [0xc6, sized(4)],
  [0xca, fixed(4)],
  [0xcb, fixed(8)],
  [0xcc, fixed(1)],
  [0xcd, fixed(2)],
  [0xce, fixed(4)],
  [0xcf, fixed(8)],
  [0xd0, fixed(1)],
  [0xd1, fixed(2)],
  [0xd2, fixed(4)],
  [0xd3, fixed(8)],
  [0xd9, sized(1)],
  [0xda, sized(2)],
  [0xdb, sized(4)],
  [0xdc, sized(2, 'array')],
  [0xdd, sized(4, 'array')],
  [0xde, sized(2, 'map')],
  [0xdf, sized(4, 'map')],
]);

/** Source: https://github.com/msgpack/msgpack/blob/master/spec.md */
function shapeOf(first: number): Shape | undefined {
  if (first <= 0x7f || first >= 0xe0) return fixed(0);
  if (first <= 0x8f) return fixed(first & 0x0f, 'map');
  if (first <= 0x9f) return fixed(first & 0x0f, 'array');
  if (first <= 0xbf) return fixed(first & 0x1f);
  return shapes.get(first);
}

function checkStructure(packed: Uint8Array): void {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  let at = 0;
  const left = () => packed.length - at;

  function skip(bytes: number): void {
    if (bytes > left()) throw malformed(`${bytes} bytes are promised where ${left()} are left`);
    at += bytes;
  }
  function length(bytes: 1 | 2 | 4): number {
    const from = at;
    skip(bytes);
    return bytes === 1 ? view.getUint8(from) : bytes === 2 ? view.getUint16(from) : view.getUint32(from);
  }
  function values(count: number, depth: number): void {
    // Every value has at least one byte, so this bounds the loop by the message.
    if (count > left()) throw malformed(`${count} values are promised where ${left()} bytes are left`);
    for (let i = 0; i < count; i++) value(depth);
  }
  function map(entries: number, depth: number): void {
    if (entries * 2 > left())
      throw malformed(`${entries} entries are promised where ${left()} bytes are left`);
    for (let i = 0; i < entries; i++) {
      const first = packed[at] ?? 0;
      const isString = (first >= 0xa0 && first <= 0xbf) || (first >= 0xd9 && first <= 0xdb);
      if (!isString) throw malformed('a key is not a string');
      value(depth);
      value(depth);
    }
  }
  function value(depth: number): void {
    if (depth === 0) throw malformed(`it is nested deeper than ${MAX_DEPTH}`);
    const first = length(1);
    const shape = shapeOf(first);
    if (shape === undefined) throw malformed(`values of type 0x${first.toString(16)} are not accepted`);
    const size = shape.lengthBytes === 0 ? shape.size : length(shape.lengthBytes);
    if (shape.is === 'bytes') skip(size);
    else if (shape.is === 'array') values(size, depth - 1);
    else map(size, depth - 1);
  }
  value(MAX_DEPTH);
  if (left() !== 0) throw malformed(`${left()} bytes follow its end`);
}

/** Throws `WireError`: `E_LIMIT` when it is too large, `E_MESSAGE` when it cannot be read. */
export function unpack(packed: Uint8Array): unknown {
  if (packed.length > MAX_PACKED_BYTES) {
    throw new WireError('E_LIMIT', `a control message of ${packed.length} bytes is too large`);
  }
  checkStructure(packed);
  try {
    return unpackr.unpack(packed);
  } catch (error) {
    throw new WireError('E_MESSAGE', 'the control message cannot be decoded', { cause: error });
  }
}
