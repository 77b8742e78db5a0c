/**
 * A plain writer of migration streams, which shares nothing with the codec under test: it knows what it
 * wrote, and so what a decoder has to find.
 */

export interface ModelBlock {
  readonly name: string;
  readonly pages: number;
  /** Written behind the block's size when it is not 4096 and post-copy is advised. */
  readonly pageBytes?: number;
}

export interface ModelPage {
  readonly block: number;
  readonly page: number;
  /** 0: a page of zeroes; negative: a fill record of the byte -fill; else raw content made of it. */
  readonly seed: number;
}

/** What a decoder has to tell, with neighbouring opaque bytes in one piece and every page for itself. */
export type Told =
  | { readonly type: 'opaque'; readonly hex: string }
  | { readonly type: 'page'; readonly block: number; readonly page: number; readonly content: string }
  | { readonly type: 'layout' | 'command' | 'verbatim'; readonly text: string }
  | { readonly type: 'ram-end' | 'state-complete' };

function pageContent({ block, page, seed }: ModelPage): Buffer {
  if (seed <= 0) return Buffer.alloc(4096, -seed);
  const content = Buffer.alloc(4096, seed & 0xff);
  content.writeUInt32LE(page, 8);
  content.writeUInt32LE(block, 4000);
  return content;
}

/** Long content in few letters. */
export function digest(content: Uint8Array): string {
  let hash = 0x811c9dc5;
  for (const byte of content) hash = Math.imul(hash ^ byte, 0x01000193);
  return `${content.length}:${hash >>> 0}`;
}

export function u16(n: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(n);
  return out;
}

export function u32(n: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(n);
  return out;
}

export function u64(n: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(n));
  return out;
}

export function named(name: string): Buffer {
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name, 'latin1')]);
}

export class ModelStream {
  readonly told: Told[] = [];
  readonly #parts: Buffer[] = [];
  readonly #sectionId: number;
  #blocks: readonly ModelBlock[] = [];
  #lastBlock = -1;

  constructor(sectionId = 2) {
    this.#sectionId = sectionId;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  /** Bytes in the stream that nobody is told of. */
  swallowed(...parts: Buffer[]): this {
    this.#parts.push(...parts);
    return this;
  }

  opaque(...parts: Buffer[]): this {
    const bytes = Buffer.concat(parts);
    this.#parts.push(bytes);
    return this.tellOpaque(bytes);
  }

  /** Bytes that a decoder has to make up. */
  tellOpaque(bytes: Buffer): this {
    const last = this.told.at(-1);
    if (last?.type === 'opaque')
      this.told[this.told.length - 1] = { type: 'opaque', hex: last.hex + bytes.toString('hex') };
    else if (bytes.length > 0) this.told.push({ type: 'opaque', hex: bytes.toString('hex') });
    return this;
  }

  tell(told: Told): this {
    this.told.push(told);
    return this;
  }

  header(machine?: string): this {
    this.opaque(Buffer.from('QEVM'), u32(3));
    if (machine !== undefined) this.opaque(Buffer.from([7]), u32(machine.length), Buffer.from(machine));
    return this;
  }

  subsection(name: string, body: Buffer): this {
    return this.opaque(Buffer.from([5]), named(name), u32(1), body);
  }

  command(command: number, payload: Buffer, text: string): this {
    this.tell({ type: 'command', text });
    return this.opaque(Buffer.from([8]), u16(command), u16(payload.length), payload);
  }

  advise(summary: number): this {
    return this.command(3, Buffer.concat([u64(summary), u64(4096)]), 'advise');
  }

  ping(value: number): this {
    return this.command(2, u32(value), `ping ${value}`);
  }

  discard(block: number, ranges: readonly (readonly [number, number])[]): this {
    const name = this.#blocks[block]!.name;
    const payload = Buffer.concat([
      Buffer.from([0]),
      named(name),
      Buffer.from([0]),
      ...ranges.flatMap(([start, length]) => [u64(start), u64(length)]),
    ]);
    return this.command(6, payload, `discard ${name} ${ranges.join(' ')}`);
  }

  packaged(blob: Buffer): this {
    this.command(7, u32(blob.length), `packaged ${blob.length}`);
    return this.opaque(blob).tell({ type: 'state-complete' });
  }

  /** `words`: what stands between the list of sizes and the end of the section. */
  setup(blocks: readonly ModelBlock[], options: { hostPage?: number; words?: Buffer[] } = {}): this {
    const hostPage = options.hostPage ?? 4096;
    this.#blocks = blocks;
    const total = blocks.reduce((sum, block) => sum + block.pages * 4096, 0);
    this.opaque(Buffer.from([1]), u32(this.#sectionId), named('ram'), u32(0), u32(4), u64(total + 4));
    for (const { name, pages, pageBytes } of blocks) {
      this.opaque(named(name), u64(pages * 4096));
      if (pageBytes !== undefined && pageBytes !== hostPage) this.opaque(u64(pageBytes));
    }
    this.opaque(...(options.words ?? []), u64(0x10), Buffer.from([0x7e]), u32(this.#sectionId));
    const text = blocks.map(
      ({ name, pages, pageBytes }) => `${name} ${pages * 4096} ${pageBytes ?? hostPage}`,
    );
    return this.tell({ type: 'layout', text: text.join(', ') });
  }

  /** Header and records of a RAM section, without its end. As QEMU does, a block is named where it changes. */
  open(type: number, pages: readonly ModelPage[]): this {
    this.swallowed(Buffer.from([type]), u32(this.#sectionId));
    for (const page of pages) {
      const same = page.block === this.#lastBlock;
      const address = page.page * 4096 + (same ? 0x20 : 0);
      this.swallowed(u64(address + (page.seed <= 0 ? 0x02 : 0x08)));
      if (!same) this.swallowed(named(this.#blocks[page.block]!.name));
      this.#lastBlock = page.block;
      const content = pageContent(page);
      this.swallowed(page.seed <= 0 ? content.subarray(0, 1) : content);
      this.tell({ type: 'page', block: page.block, page: page.page, content: digest(content) });
    }
    return this;
  }

  close(): this {
    return this.swallowed(u64(0x10), Buffer.from([0x7e]), u32(this.#sectionId));
  }

  part(pages: readonly ModelPage[]): this {
    return this.open(2, pages).close();
  }

  end(pages: readonly ModelPage[] = []): this {
    this.open(3, pages).close().tell({ type: 'ram-end' });
    const id = u32(this.#sectionId);
    return this.tellOpaque(Buffer.concat([Buffer.from([3]), id, u64(0x10), Buffer.from([0x7e]), id]));
  }

  eof(): this {
    return this.opaque(Buffer.from([0]));
  }
}

export const twoBlocks = [
  { name: 'pc.ram', pages: 64 },
  { name: 'vga.vram', pages: 16 },
];

export function raw(block: number, page: number, seed = 1): { block: number; page: number; seed: number } {
  return { block, page, seed };
}
