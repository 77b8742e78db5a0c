/**
 * Work on whole batches of pages: LZ4, XXH3, zero scan.
 *
 * The functions that return a promise run on libuv's thread pool. While one runs, its arrays belong to it:
 * the caller must not write, read (outputs), transfer or resize them. They are kept alive until then, and may
 * lie on a SharedArrayBuffer; the same rule then holds for every thread. Source and destination must not
 * overlap. Wrong arguments give `E_NATIVE_BOUNDS`, never a read or write out of bounds.
 */
import { addon, type Settle } from './addon.ts';
import { boundsError, NativeError, nativeFailure, nativeThrown } from './errors.ts';

/** An XXH3-64 in two unsigned 32-bit halves. */
export interface Checksum {
  readonly hi: number;
  readonly lo: number;
}

export type PackCodec = 'none' | 'lz4' | 'lz4hc';
/** How packed bytes are encoded: `lz4hc` writes `lz4` blocks too. */
export type PackedCodec = 'none' | 'lz4';

export interface Packed extends Checksum {
  /** Bytes written to the start of `dst`; the checksum (seed 0) is theirs. */
  readonly bytes: number;
  readonly codec: PackedCodec;
}

export interface PackOptions {
  readonly codec: PackCodec;
  /**
   * From 1, the default, to 65537. Every step makes `lz4` some per cent faster and its result larger; `lz4hc`
   * takes no notice.
   */
  readonly acceleration?: number;
}

export interface UnpackOptions extends Checksum {
  readonly codec: PackedCodec;
  /** Exactly how many bytes must come out. */
  readonly rawBytes: number;
}

const codecNumbers = { none: 0, lz4: 1, lz4hc: 2 } as const satisfies Record<PackCodec, number>;

/** Of LZ4. */
const MAX_ACCELERATION = 65_537;

/**
 * XXH3-64 of `src`, on the calling thread (7 to 14 GB/s from memory, measured). The seed is a whole number up to 2^53 - 1.
 * Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
 */
export function checksum(src: Uint8Array, seed = 0): Checksum {
  const sum = checksumWords(src, seed);
  return { hi: sum[0]!, lo: sum[1]! };
}

/** `checksum`, seed 0, on a pool thread. */
export function checksumAsync(src: Uint8Array): Promise<Checksum> {
  return job<Checksum>(
    (settle) => {
      requireBytes(src, 'src');
      addon().checksumAsync(src, settle);
    },
    (hi, lo) => ({ hi, lo }),
  );
}

/** `checksum` that allocates nothing: out[0] becomes the upper half, out[1] the lower. */
export function checksumInto(src: Uint8Array, seed: number, out: Uint32Array): void {
  if (!(out instanceof Uint32Array) || out.length < 2) throw boundsError('out must be a Uint32Array of 2');
  const sum = checksumWords(src, seed);
  out[0] = sum[0]!;
  out[1] = sum[1]!;
}

/**
 * Compresses `src` into `dst`, which must be at least as long. What does not get smaller by about 3 % is
 * copied verbatim (codec `none`), which costs little more than the copy.
 */
export function pack(src: Uint8Array, dst: Uint8Array, options: PackOptions): Promise<Packed> {
  return job<Packed>(
    (settle) => {
      requireBytes(src, 'src');
      requireBytes(dst, 'dst');
      if (dst.length < src.length) {
        throw boundsError(`dst has ${dst.length} bytes and src ${src.length}: dst must not be shorter`);
      }
      const { codec, acceleration = 1 } = options;
      requireInteger(acceleration, 1, MAX_ACCELERATION, 'acceleration');
      addon().pack(src, dst, codecNumber(codec), acceleration, settle);
    },
    (bytes, codec, hi, lo) => ({ bytes, codec: codec === codecNumbers.lz4 ? 'lz4' : 'none', hi, lo }),
  );
}

/**
 * Undoes `pack`: checks the checksum of `src` first, then writes exactly `rawBytes` to the start of `dst`.
 * Anything else is `E_NATIVE_CORRUPT`, whose message begins with what was wrong: "checksum", "length" or
 * "lz4"; the content of `dst` is then undefined. `rawBytes` larger than `dst` is the caller's bug, so check
 * a number from the wire before.
 */
export function unpack(src: Uint8Array, dst: Uint8Array, options: UnpackOptions): Promise<void> {
  return job<void>((settle) => {
    requireBytes(src, 'src');
    requireBytes(dst, 'dst');
    const { codec, rawBytes, hi, lo } = options;
    requireInteger(rawBytes, 0, dst.length, 'rawBytes');
    requireInteger(hi, 0, 0xffffffff, 'hi');
    requireInteger(lo, 0, 0xffffffff, 'lo');
    if (codec !== 'none' && codec !== 'lz4')
      throw boundsError(`codec must be none or lz4, not ${String(codec)}`);
    addon().unpack(src, dst, codecNumbers[codec], rawBytes, hi, lo, settle);
  }, nothing);
}

/**
 * The check of `unpack` alone, for bytes that are used where they lie: `E_NATIVE_CORRUPT` unless the checksum
 * (seed 0) is that of `src`.
 */
export async function verify(src: Uint8Array, { hi, lo }: Checksum): Promise<void> {
  requireInteger(hi, 0, 0xffffffff, 'hi');
  requireInteger(lo, 0, 0xffffffff, 'lo');
  const found = await checksumAsync(src);
  if (found.hi !== hi || found.lo !== lo) {
    throw new NativeError('E_NATIVE_CORRUPT', 'checksum: the payload is not what was sent');
  }
}

/**
 * Sets out[i] to 1 where page i of `src` is all zeros, else to 0; returns how many are. On the calling
 * thread: worth it up to a few hundred KiB. `src` must be whole pages, `out` at least a byte a page.
 */
export function scanZero(src: Uint8Array, pageBytes: number, out: Uint8Array): number {
  requireScan(src, pageBytes, out);
  try {
    return addon().scanZero(src, pageBytes, out);
  } catch (thrown) {
    throw nativeThrown(thrown);
  }
}

/** `scanZero` on a pool thread. */
export function scanZeroAsync(src: Uint8Array, pageBytes: number, out: Uint8Array): Promise<number> {
  return job<number>((settle) => {
    requireScan(src, pageBytes, out);
    addon().scanZeroAsync(src, pageBytes, out, settle);
  }, count);
}

/**
 * XXH3-128 of every page, four words each at out[4 * page], most significant first. Not proof against an
 * adversary who chooses the content.
 */
export function hash128(src: Uint8Array, pageBytes: number, out: Uint32Array): Promise<void> {
  return job<void>((settle) => {
    const pages = requirePages(src, pageBytes);
    if (!(out instanceof Uint32Array) || out.length < 4 * pages) {
      throw boundsError(`out must be a Uint32Array of 4 words a page, ${4 * pages}`);
    }
    addon().hash128(src, pageBytes, out, settle);
  }, nothing);
}

type Values<T> = (value0: number, value1: number, value2: number, value3: number) => T;

const nothing = (): void => undefined;
const count = (value: number): number => value;

function job<T>(start: (settle: Settle) => void, values: Values<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    try {
      start((code, value0, value1, value2, value3, message, errno) => {
        if (code === 0) resolve(values(value0, value1, value2, value3));
        else reject(nativeFailure(code, message ?? '', errno ?? 0));
      });
    } catch (thrown) {
      reject(nativeThrown(thrown));
    }
  });
}

function checksumWords(src: Uint8Array, seed: number): Uint32Array {
  requireBytes(src, 'src');
  requireInteger(seed, 0, Number.MAX_SAFE_INTEGER, 'seed');
  const table = addon();
  try {
    table.checksum(src, seed);
  } catch (thrown) {
    throw nativeThrown(thrown);
  }
  return table.sum;
}

function codecNumber(codec: PackCodec): number {
  if (!Object.hasOwn(codecNumbers, codec)) {
    throw boundsError(`codec must be none, lz4 or lz4hc, not ${String(codec)}`);
  }
  return codecNumbers[codec];
}

function requireBytes(value: Uint8Array, name: string): void {
  if (!(value instanceof Uint8Array)) throw boundsError(`${name} must be a Uint8Array`);
}

function requireInteger(value: number, least: number, most: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw boundsError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
  }
}

function requirePages(src: Uint8Array, pageBytes: number): number {
  requireBytes(src, 'src');
  requireInteger(pageBytes, 1, Number.MAX_SAFE_INTEGER, 'pageBytes');
  if (src.length % pageBytes !== 0) {
    throw boundsError(`src has ${src.length} bytes, which is not whole pages of ${pageBytes}`);
  }
  return src.length / pageBytes;
}

function requireScan(src: Uint8Array, pageBytes: number, out: Uint8Array): void {
  const pages = requirePages(src, pageBytes);
  requireBytes(out, 'out');
  if (out.length < pages) throw boundsError(`out has ${out.length} bytes for ${pages} pages`);
}
