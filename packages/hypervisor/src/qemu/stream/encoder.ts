/**
 * Destination side: items become a migration stream for QEMU again. Sans-I/O.
 *
 *     opaque* (the layout is read from them) ─▶ (opaque | pages)*
 *
 * Every batch becomes a RAM section of its own, which names its block: nothing leans on an earlier record.
 */
import type { PageBatch, RamLayout, SourceItem } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { StreamDecoder } from './decoder.ts';
import { StreamError } from './error.ts';
import { RamFlag, RecordType } from './format.ts';
import { BlockTable } from './layout.ts';
import {
  PAGE_RECORD_BYTES,
  putWord,
  SECTION_CLOSE_BYTES,
  SECTION_HEADER_BYTES,
  writeName,
  writeSectionClose,
  writeSectionHeader,
  writeWord,
  ZERO_RECORD_BYTES,
} from './ram-records.ts';

const NOTHING = new Uint8Array(0);

/** A RAM section in two places: what is written around the pages, and the pages' content where it lies. */
export interface SectionPieces {
  readonly framing: Uint8Array;
  readonly content: Uint8Array;
  /** The section's bytes in turns: so many of `framing`, so many of `content`, and so on. */
  readonly lengths: Uint32Array;
}

export class StreamEncoder {
  /**
   * Check that batches of huge-page blocks hold whole host pages, in order, as QEMU wants them in post-copy.
   */
  wholeHostPages = false;

  /** Reads the replayed bytes until they have told the layout, or cannot. */
  #reader: StreamDecoder | undefined = new StreamDecoder({ batchPages: 1 });
  #sectionId = 0;
  #blocks: BlockTable | undefined;
  #names: readonly Buffer[] = [];

  /** Known as soon as the opaque bytes of the RAM setup have passed; never in a verbatim stream. */
  get layout(): RamLayout | undefined {
    return this.#blocks?.layout;
  }

  /** Bytes for QEMU, or none where the item has none. `out` as in `encodePages`. */
  encode(item: SourceItem, out?: Uint8Array): Uint8Array {
    switch (item.type) {
      case 'opaque':
        return this.opaque(item.bytes);
      case 'pages':
        return this.encodePages(item, out);
      case 'ram-layout':
        this.checkLayout(item.layout);
        return NOTHING;
      default:
        return NOTHING;
    }
  }

  /** Returns the bytes as they are, having learnt from them. Throws `StreamError` if the RAM setup is broken. */
  opaque(bytes: Uint8Array): Uint8Array {
    const reader = this.#reader;
    if (reader !== undefined && bytes.length > 0) {
      for (const item of reader.decode(bytes)) {
        if (item.type === 'ram-layout') {
          this.#sectionId = item.sectionId;
          this.#blocks = new BlockTable(item.layout);
          this.#names = item.layout.blocks.map((block) => Buffer.from(block.name, 'latin1'));
          this.#reader = undefined;
          break;
        }
        if (item.type === 'pages') item.release();
        else if (item.type === 'verbatim') this.#reader = undefined;
      }
    }
    return bytes;
  }

  /** Throws `StreamError` unless the layout that the peer tells is the one in the stream's own bytes. */
  checkLayout(layout: RamLayout): void {
    const own = this.#table().layout.blocks;
    const same =
      own.length === layout.blocks.length &&
      own.every((block, i) => {
        const other = layout.blocks[i]!;
        return (
          block.name === other.name &&
          block.bytes === other.bytes &&
          block.hostPageBytes === other.hostPageBytes
        );
      });
    if (!same) throw new StreamError('The RAM layout that the source tells is not the one in its stream.');
  }

  /** An upper bound in bytes. */
  maxEncodedBytes(batch: PageBatch): number {
    if (batch.pages.length === 0) return 0;
    const raw = batch.content.length / PAGE_BYTES;
    return (
      SECTION_HEADER_BYTES +
      1 +
      this.#nameOf(batch).length +
      Math.ceil(raw) * PAGE_RECORD_BYTES +
      batch.pages.length * ZERO_RECORD_BYTES +
      SECTION_CLOSE_BYTES
    );
  }

  /**
   * What `encodePages` gives, with nothing of the content copied: `content` is the batch's own, which must
   * stay until the section was sent. Throws as `encodePages` does.
   */
  sectionPieces(batch: PageBatch): SectionPieces {
    const { pages, kinds, content } = batch;
    const count = pages.length;
    if (count === 0) return { framing: NOTHING, content, lengths: new Uint32Array(0) };
    const name = this.#nameOf(batch);
    this.#check(batch);
    const framing = Buffer.allocUnsafe(this.maxEncodedBytes(batch) - content.length);
    const words = new DataView(framing.buffer, framing.byteOffset, framing.length);
    const lengths = new Uint32Array(2 * (content.length / PAGE_BYTES) + 1);
    let at = writeSectionHeader(framing, 0, RecordType.sectionPart, this.#sectionId);
    let from = 0;
    let turn = 0;
    for (let i = 0; i < count; i++) {
      const raw = kinds[i] === PageKind.raw;
      const sameBlock = i === 0 ? 0 : RamFlag.sameBlock;
      at = putWord(words, at, pages[i]!, (raw ? RamFlag.page : RamFlag.fill) | sameBlock);
      if (i === 0) at = writeName(framing, at, name);
      if (raw) {
        lengths[turn] = at - from;
        lengths[turn + 1] = PAGE_BYTES;
        turn += 2;
        from = at;
      } else {
        framing[at++] = 0;
      }
    }
    at = writeSectionClose(framing, at, this.#sectionId);
    lengths[turn] = at - from;
    return { framing: framing.subarray(0, at), content, lengths };
  }

  /**
   * The batch as a RAM section, written into the front of `out` (at least `maxEncodedBytes`) or into fresh
   * memory; the result is a view of it. Does not release the batch. Throws `StreamError` for a batch that
   * does not fit the layout.
   */
  encodePages(batch: PageBatch, out?: Uint8Array): Uint8Array {
    const { pages, kinds, content } = batch;
    const count = pages.length;
    if (count === 0) return NOTHING;
    const name = this.#nameOf(batch);
    this.#check(batch);
    const most = this.maxEncodedBytes(batch);
    if (out !== undefined && out.length < most) {
      throw new RangeError(`${out.length} bytes were given for ${most} of encoded pages.`);
    }
    const to = out === undefined ? Buffer.allocUnsafeSlow(most) : asBuffer(out);
    const from = asBuffer(content);

    let at = writeSectionHeader(to, 0, RecordType.sectionPart, this.#sectionId);
    let contentAt = 0;
    let sameBlock = 0;
    for (let i = 0; i < count; i++) {
      const raw = kinds[i] === PageKind.raw;
      at = writeWord(to, at, pages[i]!, (raw ? RamFlag.page : RamFlag.fill) | sameBlock);
      if (sameBlock === 0) {
        at = writeName(to, at, name);
        sameBlock = RamFlag.sameBlock;
      }
      if (raw) {
        from.copy(to, at, contentAt, contentAt + PAGE_BYTES);
        contentAt += PAGE_BYTES;
        at += PAGE_BYTES;
      } else {
        to[at++] = 0;
      }
    }
    return to.subarray(0, writeSectionClose(to, at, this.#sectionId));
  }

  #table(): BlockTable {
    if (this.#blocks === undefined) throw new StreamError('RAM comes before the stream has told its layout.');
    return this.#blocks;
  }

  #nameOf(batch: PageBatch): Buffer {
    this.#table();
    const name = this.#names[batch.block];
    if (name === undefined) throw new StreamError(`RAM block ${batch.block} is not in the layout.`);
    return name;
  }

  #check(batch: PageBatch): void {
    const { pages, kinds, content } = batch;
    const blockPages = this.#table().pagesOf(batch.block);
    if (kinds.length !== pages.length) {
      throw new StreamError(`A batch has ${pages.length} pages and ${kinds.length} kinds.`);
    }
    let raw = 0;
    for (let i = 0; i < pages.length; i++) {
      if (pages[i]! >= blockPages) {
        throw new StreamError(`Page ${pages[i]} lies outside block ${batch.block} of ${blockPages} pages.`);
      }
      const kind = kinds[i];
      if (kind === PageKind.raw) raw++;
      else if (kind !== PageKind.zero) throw new StreamError(`Page kind ${kind} is unknown.`);
    }
    if (content.length !== raw * PAGE_BYTES) {
      throw new StreamError(`A batch of ${raw} raw pages has ${content.length} bytes of content.`);
    }
    if (this.wholeHostPages) this.#checkHostPages(batch);
  }

  #checkHostPages({ block, pages }: PageBatch): void {
    const unit = this.#table().hostPageBytesOf(block) / PAGE_BYTES;
    if (unit === 1) return;
    let whole = pages.length % unit === 0;
    for (let i = 0; whole && i < pages.length; i++) {
      whole = i % unit === 0 ? pages[i]! % unit === 0 : pages[i] === pages[i - 1]! + 1;
    }
    if (!whole) throw new StreamError(`A batch of block ${block} does not hold whole host pages.`);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
