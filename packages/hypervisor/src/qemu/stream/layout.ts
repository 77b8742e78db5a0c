import type { RamLayout } from '@vmferry/engine/guest';
import { type BlockIndex, type Bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { StreamError } from './error.ts';
import { MAX_BLOCK_BYTES } from './format.ts';

/** The blocks of a layout by name. */
export class BlockTable {
  readonly layout: RamLayout;
  readonly #byName = new Map<string, BlockIndex>();

  constructor(layout: RamLayout) {
    this.layout = layout;
    for (const [index, block] of layout.blocks.entries()) this.#byName.set(block.name, index as BlockIndex);
  }

  find(name: string): BlockIndex {
    const index = this.#byName.get(name);
    if (index === undefined)
      throw new StreamError(`The stream names a RAM block that is not in its layout: "${name}".`);
    return index;
  }

  bytesOf(block: BlockIndex): number {
    return this.layout.blocks[block]!.bytes;
  }

  pagesOf(block: BlockIndex): number {
    return this.bytesOf(block) / PAGE_BYTES;
  }

  hostPageBytesOf(block: BlockIndex): number {
    return this.layout.blocks[block]!.hostPageBytes;
  }
}

/**
 * Builds the layout from the list of sizes. QEMU adds a block's page size only where post-copy was advised
 * and the size differs from the source host's own page, and nothing in the list says so; the advised summary
 * of all sizes and the place of the word do.
 */
export class LayoutBuilder {
  /** Bytes of RAM that the list still has to account for. */
  remaining: number;
  readonly #names = new Set<string>();
  readonly #blocks: { name: string; bytes: number; pageBytes: number | undefined }[] = [];
  readonly #maxBlocks: number;

  constructor(total: number, maxBlocks: number) {
    if (total <= 0 || total > Number.MAX_SAFE_INTEGER)
      throw new StreamError(`RAM of ${total} bytes is not sane.`);
    this.remaining = total;
    this.#maxBlocks = maxBlocks;
  }

  add(name: string, size: number): void {
    if (this.#blocks.length >= this.#maxBlocks) {
      throw new StreamError(`The RAM layout has more than ${this.#maxBlocks} blocks.`);
    }
    if (this.#names.has(name)) throw new StreamError(`The RAM layout names block "${name}" twice.`);
    if (size % PAGE_BYTES !== 0 || size > MAX_BLOCK_BYTES || size > this.remaining) {
      throw new StreamError(
        `RAM block "${name}" has ${size} bytes, with ${this.remaining} left of the total.`,
      );
    }
    this.#names.add(name);
    this.#blocks.push({ name, bytes: size, pageBytes: undefined });
    this.remaining -= size;
  }

  /** The word after the last block added. False: it cannot be a page size. */
  setPageBytes(size: number, hostSummary: number): boolean {
    const block = this.#blocks.at(-1)!;
    const known = hasBit(hostSummary, size) && size >= PAGE_BYTES && block.bytes % size === 0;
    if (!known || block.pageBytes !== undefined) return false;
    block.pageBytes = size;
    return true;
  }

  /** `hostSummary`: page sizes of all blocks or-ed, 0 if post-copy was not advised. */
  build(hostSummary: number): RamLayout {
    // The host's own page is the smallest there is, as huge pages are made of it.
    const own = hostSummary === 0 ? PAGE_BYTES : lowestBit(hostSummary);
    return {
      blocks: this.#blocks.map(({ name, bytes, pageBytes }) => ({
        name,
        bytes: bytes as Bytes,
        hostPageBytes: (pageBytes ?? (bytes % own === 0 ? own : PAGE_BYTES)) as Bytes,
      })),
    };
  }
}

function lowestBit(n: number): number {
  let bit = 1;
  while (n % (bit * 2) === 0) bit *= 2;
  return bit;
}

/** Is `bit` one power of two, and set in `n`? Beyond 32 bits too. */
function hasBit(n: number, bit: number): boolean {
  return bit > 0 && lowestBit(bit) === bit && Math.floor(n / bit) % 2 === 1;
}
