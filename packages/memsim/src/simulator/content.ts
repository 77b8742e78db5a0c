/** What pages hold, as far as it makes a difference on the way: their size as LZ4 packs them, and how fast. */

import { PAGE_BYTES } from '@vmferry/engine/units';
import type { ContentMix } from '../guest-file/schema.ts';

/**
 * Share of its size that is left of a page, by thorough and by hasty packing (the agents' in post-copy on a fast link)
 * and by LZ4 HC, and bytes that one core packs a second, by LZ4 and by LZ4 HC.
 */
interface Packing {
  readonly left: number;
  readonly hasty: number;
  readonly hc: number;
  readonly bytesPerSec: number;
  readonly hcBytesPerSec: number;
}

/**
 * Measured with liblz4 on pages of simulated guests, in blocks as the agent packs them. LZ4 HC by the addon's kernel in
 * blocks of 2 MiB, beside LZ4: 111 MB/s of text where that packed 470, and so on. What does not pack costs it nothing,
 * as LZ4 is tried first.
 */
const TEXT: Packing = { left: 0.507, hasty: 0.717, hc: 0.377, bytesPerSec: 400e6, hcBytesPerSec: 95e6 };
const DUPLICATE: Packing = { left: 0.41, hasty: 0.63, hc: 0.309, bytesPerSec: 450e6, hcBytesPerSec: 100e6 };
const RANDOM: Packing = { left: 1, hasty: 1, hc: 1, bytesPerSec: 2000e6, hcBytesPerSec: 2000e6 };
/** Zeroes that were written to: a little text, and zeroes. */
const STAMPED: Packing = { left: 0.058, hasty: 0.08, hc: 0.055, bytesPerSec: 2000e6, hcBytesPerSec: 300e6 };
/** What LZ4 HC leaves of what LZ4 leaves: 0.377 of 0.507, and of a program's text 0.47 of 0.575. */
const HC_POWER = Math.log(TEXT.hc) / Math.log(TEXT.left);

/** Bytes of a page's entry in the list of its batch. */
const ENTRY_BYTES = 1.25;
/** A frame's header and its share of what the stream has besides, for 512 raw pages. */
const FRAME_SHARE_BYTES = 100 / 512;

/** How pages in bulk go over: as they are, or packed. */
export type BulkCodec = 'raw' | 'lz4' | 'lz4hc';
/** The same, or packed in haste. */
export type WireForm = BulkCodec | 'hasty';

/** A number of pages, and what they weigh. */
export interface Load {
  /** Pages with content, and pages of zeroes. */
  rawPages: number;
  zeroPages: number;
  /** Bytes on the wire, as they are and packed, thoroughly, in haste or by LZ4 HC. */
  plainBytes: number;
  packedBytes: number;
  hastyBytes: number;
  hcBytes: number;
  /** Milliseconds of one core to pack them, by LZ4 and by LZ4 HC. */
  packMs: number;
  hcPackMs: number;
}

export function emptyLoad(): Load {
  return {
    rawPages: 0,
    zeroPages: 0,
    plainBytes: 0,
    packedBytes: 0,
    hastyBytes: 0,
    hcBytes: 0,
    packMs: 0,
    hcPackMs: 0,
  };
}

/** What pages hold, and how far those of text pack where that was measured. */
export interface Content extends ContentMix {
  /** Share of its size that is left of a page of text. */
  readonly textLeft?: number | undefined;
  readonly textHastyLeft?: number | undefined;
  /**
   * The same of any page that was written, where what is written is not like the rest: a real guest keeps its zeroes
   * where it does not write.
   */
  readonly writtenLeft?: number | undefined;
}

/** What some pages hold, where it was looked at. */
export interface Held {
  /** Share of them that are zeroes. */
  readonly zero: number;
  /** What is left of the others by thorough and by hasty packing. */
  readonly left: number;
  readonly hastyLeft: number;
}

export const BLANK: Held = { zero: 1, left: 0, hastyLeft: 0 };

/**
 * `written`: pages that the workload wrote since the guest began; `virgin`: the others, but for those that are `apart`,
 * because it is known what they hold.
 */
export function loadOf(
  mix: Content,
  written: number,
  virgin: number,
  apart: readonly { readonly pages: number; readonly held: Held }[] = [],
): Load {
  const load = emptyLoad();
  const text =
    mix.textLeft === undefined ? TEXT : packingOf(mix.textLeft, mix.textHastyLeft ?? hastyOf(mix.textLeft));
  // Written pages that are like the rest are counted with it.
  const alike = mix.writtenLeft === undefined ? written : 0;
  addKind(load, (virgin + alike) * mix.text, text);
  addKind(load, (virgin + alike) * mix.duplicate, DUPLICATE);
  addKind(load, (virgin + alike) * mix.random, RANDOM);
  addKind(load, alike * mix.zero, STAMPED);
  if (mix.writtenLeft !== undefined) {
    // As much worse in haste as other text.
    const more = text.left > 0 ? text.hasty / text.left : 1;
    addKind(load, written, packingOf(mix.writtenLeft, Math.min(1, mix.writtenLeft * more)));
  }
  load.zeroPages = virgin * mix.zero;
  for (const { pages, held } of apart) {
    addKind(load, pages * (1 - held.zero), packingOf(held.left, held.hastyLeft));
    load.zeroPages += pages * held.zero;
  }
  const entries = ENTRY_BYTES * load.zeroPages;
  load.plainBytes += entries;
  load.packedBytes += entries;
  load.hastyBytes += entries;
  load.hcBytes += entries;
  return load;
}

export function added(a: Load, b: Load): Load {
  return {
    rawPages: a.rawPages + b.rawPages,
    zeroPages: a.zeroPages + b.zeroPages,
    plainBytes: a.plainBytes + b.plainBytes,
    packedBytes: a.packedBytes + b.packedBytes,
    hastyBytes: a.hastyBytes + b.hastyBytes,
    hcBytes: a.hcBytes + b.hcBytes,
    packMs: a.packMs + b.packMs,
    hcPackMs: a.hcPackMs + b.hcPackMs,
  };
}

export function scaled(load: Load, share: number): Load {
  return {
    rawPages: load.rawPages * share,
    zeroPages: load.zeroPages * share,
    plainBytes: load.plainBytes * share,
    packedBytes: load.packedBytes * share,
    hastyBytes: load.hastyBytes * share,
    hcBytes: load.hcBytes * share,
    packMs: load.packMs * share,
    hcPackMs: load.hcPackMs * share,
  };
}

/** Text of which it is known what LZ4 leaves. */
function packingOf(left: number, hasty: number): Packing {
  return { ...TEXT, left, hasty, hc: left ** HC_POWER };
}

/** What is left of text by hasty packing, where only the other is known. */
function hastyOf(left: number): number {
  const more = (TEXT.hasty - TEXT.left) / (1 - TEXT.left);
  return left + more * (1 - left);
}

function addKind(load: Load, pages: number, { left, hasty, hc, bytesPerSec, hcBytesPerSec }: Packing): void {
  const list = pages * (ENTRY_BYTES + FRAME_SHARE_BYTES);
  load.rawPages += pages;
  load.plainBytes += pages * PAGE_BYTES + list;
  load.packedBytes += pages * PAGE_BYTES * left + list;
  load.hastyBytes += pages * PAGE_BYTES * hasty + list;
  load.hcBytes += pages * PAGE_BYTES * hc + list;
  load.packMs += (pages * PAGE_BYTES * 1000) / bytesPerSec;
  load.hcPackMs += (pages * PAGE_BYTES * 1000) / hcBytesPerSec;
}
