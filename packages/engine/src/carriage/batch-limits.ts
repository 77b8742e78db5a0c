/**
 * How much one page batch holds. Every batch costs the same in promises, jobs and acknowledgements, so before
 * post-copy batches are large; they are bounded by content, for a page of zeroes costs next to nothing. In
 * post-copy a page waits for the batch that it is in, so they are small. All other sizes (buffers, frames) are
 * made from these.
 */
import { PAGE_BYTES } from '../units.ts';
import { maxPageListBytes } from './page-payload.ts';

export interface BatchLimits {
  readonly rawPages: number;
  /** Raw ones included. */
  readonly pages: number;
}

/** Content of the largest batch of small pages, in bytes. */
const BATCH_CONTENT_BYTES = 2 * 1024 * 1024;
/** Pages in all for each that may be raw. */
const PAGES_PER_RAW_PAGE = 8;
/** What a carrier may put before the list. */
const CARRIER_HEADER_BYTES = 64;

/** What pages have both agents and hypervisors do, in bytes of content: a page of zeroes is some work too. */
export function weightOf(contentBytes: number, pages: number): number {
  const zeroPages = Math.max(0, pages - contentBytes / PAGE_BYTES);
  return contentBytes + (zeroPages * PAGE_BYTES) / PAGES_PER_RAW_PAGE;
}

/** As much content as a worker reads ahead in post-copy. */
export const POSTCOPY_BATCH: BatchLimits = { rawPages: 64, pages: 256 };

/** The largest payload of small pages, list and content, in bytes. */
export const BATCH_PAYLOAD_BYTES = payloadBytes(limitsOf(BATCH_CONTENT_BYTES / PAGE_BYTES));

/** Before post-copy, for a peer that takes frames of at most so many bytes. */
export function precopyBatch(maxFrameBytes: number): BatchLimits {
  let limits = limitsOf(BATCH_CONTENT_BYTES / PAGE_BYTES);
  while (limits.rawPages > 1 && CARRIER_HEADER_BYTES + payloadBytes(limits) > maxFrameBytes) {
    limits = limitsOf(limits.rawPages >> 1);
  }
  return limits;
}

/** As much as goes along with a fault at most (`postcopy/prepaging`). */
const EXPRESS_PAGES = 256;

/** Pages that answer a fault in one frame of at most so many bytes, whatever they are. */
export function expressPages(maxFrameBytes: number): number {
  let count = EXPRESS_PAGES;
  while (count > 1 && !fitsFrame(count, maxFrameBytes)) count >>= 1;
  return count;
}

/** Whether a frame of at most so many bytes takes a whole host page, which post-copy never divides. */
export function hostPageFits(hostPageBytes: number, maxFrameBytes: number): boolean {
  return fitsFrame(hostPageBytes / PAGE_BYTES, maxFrameBytes);
}

function fitsFrame(count: number, maxFrameBytes: number): boolean {
  return CARRIER_HEADER_BYTES + payloadBytes({ rawPages: count, pages: count }) <= maxFrameBytes;
}

/** So much of a second is a batch on its way: what is in batches when the guest stops counts as downtime. */
const BATCH_SECONDS = 0.01;
/**
 * A batch costs both agents about a millisecond of CPU, however large it is. Where so much more than this gets away in
 * a second, CPU is what a migration lacks, and each further byte counts twice.
 */
const BRISK_BYTES_PER_SEC = 50e6;
/** 64 KiB: each batch has its price. */
const LEAST_RAW_PAGES = 16;
/** Until it is known what gets away. */
const FIRST_RAW_PAGES = 128;

/** Where so much content gets away in a second (undefined before it was measured), of the `most` that there may be. */
export function pacedBatch(most: BatchLimits, contentBytesPerSec: number | undefined): BatchLimits {
  const wanted =
    contentBytesPerSec === undefined
      ? FIRST_RAW_PAGES
      : Math.max(LEAST_RAW_PAGES, Math.floor((weighed(contentBytesPerSec) * BATCH_SECONDS) / PAGE_BYTES));
  return { rawPages: Math.min(most.rawPages, wanted), pages: most.pages };
}

function weighed(contentBytesPerSec: number): number {
  return contentBytesPerSec + Math.max(0, contentBytesPerSec - BRISK_BYTES_PER_SEC);
}

/** Room before the content of a batch of so many pages for its list and the carrier's header, in bytes. */
export function headroomFor(pages: number): number {
  return CARRIER_HEADER_BYTES + maxPageListBytes(pages);
}

function limitsOf(rawPages: number): BatchLimits {
  return { rawPages, pages: rawPages * PAGES_PER_RAW_PAGE };
}

/** Size of the largest payload with so much in it, in bytes. */
export function payloadBytes({ rawPages, pages }: BatchLimits): number {
  return maxPageListBytes(pages) + rawPages * PAGE_BYTES;
}
