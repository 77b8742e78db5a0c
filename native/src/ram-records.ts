/**
 * Runs of page records in a RAM section of QEMU's migration stream, read on the calling thread. What a record is
 * stands in cc/ram_records.cc.
 */
import { addon } from './addon.ts';
import { nativeThrown } from './errors.ts';

/** What each place of a cursor holds. `position`, `count` and `contentEnd` move on, the others are bounds. */
export const Cursor = {
  /** The next byte of `input`. */
  position: 0,
  /** Nothing of `input` is read from here on. */
  end: 1,
  /** Pages of the block that is meant, at most 2^32. */
  blockPages: 2,
  /** Filled places of `pages` and `kinds`. */
  count: 3,
  maxPages: 4,
  /** Filled bytes of `content`. */
  contentEnd: 5,
  maxContent: 6,
} as const;

export function newCursor(): Float64Array {
  return new Float64Array(Object.keys(Cursor).length);
}

/**
 * Consumes records of the same block, raw pages and pages of zeroes, until one comes that is anything else, does
 * not lie whole before `end`, names a page outside the block or finds no room, or until a raw page has filled the
 * content up. Kinds are 0 for raw, 1 for zero.
 * Throws `E_NATIVE_BOUNDS` when the cursor does not fit its arrays, and then touches nothing.
 */
export function readRecords(
  cursor: Float64Array,
  input: Uint8Array,
  pages: Uint32Array,
  kinds: Uint8Array,
  content: Uint8Array,
): void {
  try {
    addon().readRecords(cursor, input, pages, kinds, content);
  } catch (thrown) {
    throw nativeThrown(thrown);
  }
}
