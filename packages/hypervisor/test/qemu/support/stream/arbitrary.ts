/** Streams as fast-check makes them up. */
import fc from 'fast-check';
import { type ModelBlock, type ModelPage, ModelStream, named, u32 } from './model.ts';

const HUGE_PAGES = 8;

const blockSizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 });
const seed = fc.oneof(
  fc.constant(0),
  fc.constant(0),
  fc.integer({ min: -255, max: -1 }),
  fc.integer({ min: 1, max: 250 }),
);
const rawPage = fc.record({ block: fc.nat(), page: fc.nat(), seed });
const sections = fc.array(fc.array(rawPage, { maxLength: 25 }), { maxLength: 6 });

function fit(blocks: readonly ModelBlock[], { block, page, seed }: ModelPage): ModelPage {
  const index = block % blocks.length;
  return { block: index, page: page % blocks[index]!.pages, seed };
}

/** Pages of huge-page blocks come whole. */
function whole(blocks: readonly ModelBlock[], pages: readonly ModelPage[]): ModelPage[] {
  return pages.flatMap((page) => {
    if (blocks[page.block]!.pageBytes === undefined) return [page];
    const first = page.page - (page.page % HUGE_PAGES);
    return Array.from({ length: HUGE_PAGES }, (_, i) => ({
      ...page,
      page: first + i,
      seed: i === 3 ? 0 : page.seed,
    }));
  });
}

export const precopyStream: fc.Arbitrary<ModelStream> = fc
  .record({
    sizes: blockSizes,
    machine: fc.option(fc.constantFrom('pc-i440fx-7.2', 'q35'), { nil: undefined }),
    uuid: fc.boolean(),
    ping: fc.option(fc.nat(2 ** 31), { nil: undefined }),
    unknown: fc.option(fc.uint8Array({ maxLength: 40 }), { nil: undefined }),
    sections,
    last: fc.array(rawPage, { maxLength: 25 }),
    state: fc.uint8Array({ maxLength: 3000 }),
  })
  .map(({ sizes, machine, uuid, ping, unknown, sections, last, state }) => {
    const blocks = sizes.map((pages, i) => ({ name: `block/${i}`, pages }));
    const stream = new ModelStream(sizes.length + 1).header(machine);
    if (machine !== undefined && uuid) stream.subsection('configuration/uuid', Buffer.alloc(16, 7));
    if (ping !== undefined) stream.command(1, Buffer.alloc(0), 'open-return-path').ping(ping);
    stream.setup(blocks);
    for (const pages of sections) stream.part(pages.map((page) => fit(blocks, page)));
    if (unknown !== undefined) stream.command(99, Buffer.from(unknown), 'unknown 99');
    return stream.end(last.map((page) => fit(blocks, page))).opaque(Buffer.from(state));
  });

export const postcopyStream: fc.Arbitrary<ModelStream> = fc
  .record({
    sizes: fc.array(fc.record({ pages: fc.integer({ min: 1, max: 6 }), huge: fc.boolean() }), {
      minLength: 1,
      maxLength: 4,
    }),
    before: sections,
    after: sections,
    discards: fc.array(fc.nat(), { maxLength: 3 }),
    state: fc.uint8Array({ maxLength: 3000 }),
  })
  .map(({ sizes, before, after, discards, state }) => {
    const blocks: ModelBlock[] = sizes.map(({ pages, huge }, i) => ({
      name: `block${i}`,
      pages: pages * HUGE_PAGES,
      ...(huge ? { pageBytes: HUGE_PAGES * 4096 } : {}),
    }));
    const stream = new ModelStream().header('q35').command(1, Buffer.alloc(0), 'open-return-path').ping(1);
    stream.advise(4096 + (sizes.some(({ huge }) => huge) ? HUGE_PAGES * 4096 : 0));
    // With huge pages only, the host's own page is not in the summary unless a block has it.
    stream.setup(blocks);
    for (const pages of before) stream.part(pages.map((page) => fit(blocks, page)));
    for (const n of discards) {
      const block = n % blocks.length;
      stream.discard(block, [
        [0, blocks[block]!.pages * 4096],
        [4096 * HUGE_PAGES * (blocks[block]!.pages / HUGE_PAGES - 1), 4096 * HUGE_PAGES],
      ]);
    }
    stream
      .ping(2)
      .packaged(Buffer.concat([Buffer.from([8]), u32(8 << 16), Buffer.from(state)]))
      .ping(4);
    for (const pages of after)
      stream.part(
        whole(
          blocks,
          pages.map((page) => fit(blocks, page)),
        ),
      );
    return stream.end().eof();
  });

/** The record of an XBZRLE page. */
export function xbzrleRecord(data: Buffer, name?: string): Buffer {
  return Buffer.concat([
    ...(name === undefined ? [] : [named(name)]),
    Buffer.from([1, 0, data.length]),
    data,
  ]);
}

/** Places for `cut`. */
export const cuts = fc.array(fc.nat(2 ** 20), { maxLength: 60 });
