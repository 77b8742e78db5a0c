import type { BatchLimits } from '@vmferry/engine/carriage/batch-limits';
import type { Lane, PageBatch } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import { type BlockIndex, type Bytes, PAGE_BYTES, type Round } from '@vmferry/engine/units';

/** Memory for the raw pages of one batch. */
export interface ContentBuffer {
  /** At least as many bytes as were asked for. */
  readonly content: Uint8Array;
  /** What may be overwritten of the buffer before `content`: see `PageBatch`. Defaults to none. */
  readonly headroomBytes?: Bytes;
  release(): void;
}

/** Called once a batch, at its first raw page; must answer at once. `bytes` is the most that may be needed. */
export type ContentAllocator = (bytes: number) => ContentBuffer;

const NOTHING = new Uint8Array(0);
const noop = (): void => {};

/** Gathers the pages of one batch at a time: one block, one lane, one round. */
export class BatchBuilder {
  count = 0;
  block = 0 as BlockIndex;
  lane: Lane = 'bulk';
  /** The content the next raw page goes to, at `contentEnd`. */
  content: Uint8Array = NOTHING;
  contentEnd = 0;
  lastPage = 0;
  /** Where the page numbers and kinds are gathered; `count` of them are filled. Used again for every batch. */
  pages = new Uint32Array(0);
  kinds = new Uint8Array(0);
  #round = 0 as Round;
  #maxPages = 0;
  #maxContent = 0;
  #buffer: ContentBuffer | undefined;
  readonly #allocate: ContentAllocator;

  constructor(allocate: ContentAllocator) {
    this.#allocate = allocate;
  }

  get full(): boolean {
    return this.count === this.#maxPages || this.contentEnd === this.#maxContent;
  }

  /** Pages that the open batch may hold. */
  get maxPages(): number {
    return this.#maxPages;
  }

  /** Bytes of content that the open batch has room for: none before its first raw page. */
  get roomForContent(): number {
    return this.#buffer === undefined ? 0 : this.#maxContent;
  }

  open(block: BlockIndex, lane: Lane, round: Round, limits: BatchLimits): void {
    this.block = block;
    this.lane = lane;
    this.#round = round;
    this.#maxPages = limits.pages;
    this.#maxContent = limits.rawPages * PAGE_BYTES;
    if (this.pages.length < limits.pages) {
      this.pages = new Uint32Array(limits.pages);
      this.kinds = new Uint8Array(limits.pages);
    }
    this.count = 0;
    this.contentEnd = 0;
  }

  addZero(page: number): void {
    this.pages[this.count] = page;
    this.kinds[this.count] = PageKind.zero;
    this.lastPage = page;
    this.count++;
  }

  /** Makes room for a raw page and returns where in `content` its bytes belong. */
  addRaw(page: number): number {
    if (this.#buffer === undefined) this.#allocateContent();
    this.pages[this.count] = page;
    this.kinds[this.count] = PageKind.raw;
    this.lastPage = page;
    this.count++;
    const at = this.contentEnd;
    this.contentEnd = at + PAGE_BYTES;
    return at;
  }

  /** Pages were put into `pages`, `kinds` and `content` from outside, as far as this. */
  filled(count: number, contentEnd: number): void {
    if (count === 0) return;
    this.count = count;
    this.contentEnd = contentEnd;
    this.lastPage = this.pages[count - 1]!;
  }

  get lastKind(): number {
    return this.kinds[this.count - 1]!;
  }

  /** Hands the batch over, or undefined when it is empty. */
  take(): PageBatch | undefined {
    if (this.count === 0) return undefined;
    const buffer = this.#buffer;
    const batch: PageBatch = {
      type: 'pages',
      block: this.block,
      round: this.#round,
      lane: this.lane,
      pages: this.pages.slice(0, this.count),
      kinds: this.kinds.slice(0, this.count),
      content: this.content.subarray(0, this.contentEnd),
      headroomBytes: buffer?.headroomBytes ?? (0 as Bytes),
      release: buffer === undefined ? noop : () => buffer.release(),
    };
    this.#clear();
    return batch;
  }

  /** Gives up what was gathered. */
  drop(): void {
    this.#buffer?.release();
    this.#clear();
  }

  #clear(): void {
    this.#buffer = undefined;
    this.content = NOTHING;
    this.contentEnd = 0;
    this.count = 0;
  }

  #allocateContent(): void {
    const bytes = this.#maxContent;
    const buffer = this.#allocate(bytes);
    if (buffer.content.length < bytes) {
      buffer.release();
      throw new RangeError(
        `The page pool gave ${buffer.content.length} bytes where ${bytes} were asked for.`,
      );
    }
    this.#buffer = buffer;
    this.content = buffer.content;
  }
}
