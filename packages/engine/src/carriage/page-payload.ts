/**
 * The payload of one frame of pages, the same for every hypervisor. Integers are little-endian.
 *
 *     u32 runs
 *     runs × { u32 first page, u32 kind << 28 | length }
 *     raw pages' content, 4096 bytes each, in the order of the list
 *
 * A run is a stretch of consecutive page numbers of one kind, so a full batch of one kind costs 12 bytes.
 * The block, the round and the checksum are the frame header's.
 */

import { type PageBatch, PageKind } from '../guest.ts';
import { PAGE_BYTES } from '../units.ts';
import { PayloadError } from './payload-error.ts';

const HEAD_BYTES = 4;
const RUN_BYTES = 8;
const LENGTH_BITS = 28;
const KIND_UNIT = 2 ** LENGTH_BITS;
const LENGTH_MASK = KIND_UNIT - 1;
const KINDS = Object.keys(PageKind).length;

/** One huge page of 1 GiB is the largest batch that has to travel whole. */
const DEFAULT_MAX_PAGES = 262_144;

export interface PageListLimits {
  /** Pages of the block that the frame's header names. */
  readonly blockPages: number;
  /** Pages that one payload may hold; 262144 unless told. */
  readonly maxPages?: number;
}

export interface PageList {
  /** Page numbers within the block, in the order in which they were encoded. */
  readonly pages: Uint32Array;
  /** `PageKind` of each page. */
  readonly kinds: Uint8Array;
  /** Where the raw pages' content begins in the payload; it reaches to the payload's end. */
  readonly contentOffset: number;
}

/** Bytes that the list of `count` pages takes at most, without content. */
export function maxPageListBytes(count: number): number {
  return HEAD_BYTES + count * RUN_BYTES;
}

/**
 * Writes the list of a batch's pages at `offset` and returns the offset behind it, where the batch's
 * `content` belongs. `target` must have `maxPageListBytes(batch.pages.length)` bytes of room.
 */
export function encodePageList(
  batch: Pick<PageBatch, 'pages' | 'kinds'>,
  target: Uint8Array,
  offset: number,
): number {
  const { pages, kinds } = batch;
  const count = pages.length;
  if (count !== kinds.length) throw new RangeError('a page batch has one kind for each page');
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  let runs = 0;
  let at = offset + HEAD_BYTES;
  let index = 0;
  while (index < count) {
    const first = pages[index]!;
    const kind = kinds[index]!;
    const most = Math.min(count, index + LENGTH_MASK);
    // What has to be added to a page's index to get its number, as long as the run lasts.
    const shift = first - index;
    let end = index + 1;
    while (end < most && pages[end] === end + shift && kinds[end] === kind) end += 1;
    view.setUint32(at, first, true);
    view.setUint32(at + 4, kind * KIND_UNIT + (end - index), true);
    at += RUN_BYTES;
    index = end;
    runs += 1;
  }
  view.setUint32(offset, runs, true);
  return at;
}

/**
 * Reads a payload back. Everything is checked against the block's size and the payload's own length
 * before anything is allocated.
 *
 * @throws PayloadError when the payload is not exactly a list and its content
 */
export function decodePageList(payload: Uint8Array, limits: PageListLimits): PageList {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const maxPages = limits.maxPages ?? DEFAULT_MAX_PAGES;
  if (payload.byteLength < HEAD_BYTES) throw new PayloadError('a page payload ends before its list');
  const runs = view.getUint32(0, true);
  if (runs > maxPages || HEAD_BYTES + runs * RUN_BYTES > payload.byteLength) {
    throw new PayloadError(`a page payload of ${payload.byteLength} bytes claims ${runs} runs`);
  }
  let count = 0;
  let raw = 0;
  for (let run = 0; run < runs; run += 1) {
    const first = view.getUint32(HEAD_BYTES + run * RUN_BYTES, true);
    const word = view.getUint32(HEAD_BYTES + run * RUN_BYTES + 4, true);
    const length = word & LENGTH_MASK;
    const kind = word >>> LENGTH_BITS;
    if (kind >= KINDS) throw new PayloadError(`a page payload holds pages of the unknown kind ${kind}`);
    if (length === 0 || first + length > limits.blockPages) {
      throw new PayloadError(
        `a page payload names pages ${first} to ${first + length} of a block of ${limits.blockPages}`,
      );
    }
    count += length;
    if (count > maxPages) throw new PayloadError(`a page payload holds more than ${maxPages} pages`);
    if (kind === PageKind.raw) raw += length;
  }
  const contentOffset = HEAD_BYTES + runs * RUN_BYTES;
  if (payload.byteLength - contentOffset !== raw * PAGE_BYTES) {
    throw new PayloadError(
      `a page payload of ${raw} raw pages has ${payload.byteLength - contentOffset} bytes of content`,
    );
  }
  const pages = new Uint32Array(count);
  const kinds = new Uint8Array(count);
  let index = 0;
  for (let run = 0; run < runs; run += 1) {
    const first = view.getUint32(HEAD_BYTES + run * RUN_BYTES, true);
    const word = view.getUint32(HEAD_BYTES + run * RUN_BYTES + 4, true);
    const length = word & LENGTH_MASK;
    const kind = word >>> LENGTH_BITS;
    // Runs are often short, and a call of fill would take longer than they do.
    for (let step = 0; step < length; step += 1) {
      pages[index + step] = first + step;
      kinds[index + step] = kind;
    }
    index += length;
  }
  return { pages, kinds, contentOffset };
}
