/** Branded numbers: a page number cannot be passed where bytes are meant. */
declare const unit: unique symbol;
type Unit<Name extends string> = number & { readonly [unit]: Name };

/** A size or an offset, in bytes. */
export type Bytes = Unit<'bytes'>;
/** A count of guest pages, or a page's number within its block. */
export type Pages = Unit<'pages'>;
/** A duration, or a stamp of the clock that was handed in, in milliseconds. */
export type Millis = Unit<'ms'>;
/** A rate, in bytes per second. */
export type BytesPerSec = Unit<'bytes/s'>;
/** The place of a block in the guest's RAM layout. */
export type BlockIndex = Unit<'block'>;
/** One pass over the dirty pages; the first pass over all memory is round 1. */
export type Round = Unit<'round'>;

export const bytes = (n: number): Bytes => n as Bytes;
export const pages = (n: number): Pages => n as Pages;
export const millis = (n: number): Millis => n as Millis;
export const bytesPerSec = (n: number): BytesPerSec => n as BytesPerSec;
export const blockIndex = (n: number): BlockIndex => n as BlockIndex;
export const round = (n: number): Round => n as Round;

/** The guest page size that vmferry carries. x86-64 and the usual aarch64 guests have it. */
export const PAGE_BYTES = 4096;
