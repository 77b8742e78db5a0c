import type { PageBatch } from '@vmferry/engine/guest';
import { type BlockIndex, type Bytes, round } from '@vmferry/engine/units';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DecodedItem } from '../../src/qemu/stream/decoded.ts';
import { StreamDecoder } from '../../src/qemu/stream/decoder.ts';
import { StreamEncoder } from '../../src/qemu/stream/encoder.ts';
import { postcopyStream, precopyStream } from './support/stream/arbitrary.ts';
import { ModelStream } from './support/stream/model.ts';
import { cut, decodeAll, tell } from './support/stream/told.ts';

const cuts = fc.array(fc.nat(2 ** 20), { maxLength: 30 });

function encodeAll(encoder: StreamEncoder, items: readonly DecodedItem[]): Buffer {
  const out: Uint8Array[] = [];
  for (const item of items) {
    if (item.type !== 'command' && item.type !== 'ram-end') out.push(encoder.encode(item));
  }
  return Buffer.concat(out);
}

function batch(fields: Partial<PageBatch> & { pages: Uint32Array }): PageBatch {
  const kinds = fields.kinds ?? new Uint8Array(fields.pages.length).fill(1);
  return {
    type: 'pages',
    block: 0 as BlockIndex,
    round: round(1),
    lane: 'bulk',
    kinds,
    content: new Uint8Array(0),
    headroomBytes: 0 as Bytes,
    release: () => {},
    ...fields,
  };
}

const blocks = [
  { name: 'pc.ram', pages: 2048, pageBytes: 2 ** 21 },
  { name: 'vga.vram', pages: 16 },
];

function ready(): StreamEncoder {
  const encoder = new StreamEncoder();
  encoder.opaque(
    new ModelStream(77)
      .header('q35')
      .advise(4096 + 2 ** 21)
      .setup(blocks).bytes,
  );
  return encoder;
}

describe('the stream encoder', () => {
  it('writes a stream that says the same as the one that was read', () => {
    fc.assert(
      fc.property(
        fc.oneof(precopyStream, postcopyStream),
        cuts,
        fc.integer({ min: 1, max: 20 }),
        (stream, places, batchPages) => {
          const items = decodeAll(new StreamDecoder({ batchPages }), cut(stream.bytes, places));
          const again = encodeAll(new StreamEncoder(), items);
          const decoder = new StreamDecoder({ batchPages: 7 });
          expect(tell(decodeAll(decoder, cut(again, places)))).toEqual(stream.told);
          expect(decoder.finish().state).not.toBe('truncated');
        },
      ),
      { numRuns: 300 },
    );
  });

  it('writes whatever order batches come in, as each names its block', () => {
    fc.assert(
      fc.property(precopyStream, fc.infiniteStream(fc.nat(1000)), (stream, order) => {
        const items = decodeAll(new StreamDecoder({ batchPages: 3 }), [stream.bytes]);
        const first = items.findIndex((item) => item.type === 'ram-layout') + 1;
        const pages = items.filter((item) => item.type === 'pages');
        const shuffled = pages
          .map((item) => ({ item, key: order.next().value ?? 0 }))
          .sort((a, b) => a.key - b.key)
          .map(({ item }) => item);
        const encoder = new StreamEncoder();
        const again = encodeAll(encoder, [...items.slice(0, first), ...shuffled]);
        const found = tell(decodeAll(new StreamDecoder({ batchPages: 3 }), [again]));
        expect(found.filter((item) => item.type === 'page')).toEqual(tell(shuffled));
      }),
      { numRuns: 100 },
    );
  });

  it('writes into the buffer it is given, within the bound it told', () => {
    fc.assert(
      fc.property(precopyStream, (stream) => {
        const items = decodeAll(new StreamDecoder({ batchPages: 9 }), [stream.bytes]);
        const encoder = new StreamEncoder();
        for (const item of items) {
          if (item.type === 'opaque') encoder.opaque(item.bytes);
          if (item.type !== 'pages') continue;
          const out = new Uint8Array(encoder.maxEncodedBytes(item));
          const encoded = encoder.encodePages(item, out);
          expect(encoded.buffer).toBe(out.buffer);
          expect(Buffer.compare(encoded, encoder.encodePages(item))).toBe(0);
        }
      }),
      { numRuns: 50 },
    );
    const one = batch({ pages: Uint32Array.of(1) });
    expect(() => ready().encodePages(one, new Uint8Array(10))).toThrow(RangeError);
  });

  it('uses the id that the RAM section has in this very stream', () => {
    const encoded = ready().encodePages(batch({ pages: Uint32Array.of(5) }));
    const hex = '02 0000004d 0000000000005002 06 70632e72616d 00 0000000000000010 7e 0000004d';
    expect(Buffer.from(encoded).toString('hex')).toBe(hex.replaceAll(' ', ''));
  });

  it('writes nothing for an empty batch', () => {
    expect(ready().encodePages(batch({ pages: new Uint32Array(0) }))).toHaveLength(0);
  });

  it('refuses batches that do not fit the layout', () => {
    const refused: [PageBatch, RegExp][] = [
      [batch({ pages: Uint32Array.of(1), block: 2 as BlockIndex }), /not in the layout/],
      [batch({ pages: Uint32Array.of(16), block: 1 as BlockIndex }), /outside block 1/],
      [batch({ pages: Uint32Array.of(1), kinds: Uint8Array.of(0) }), /0 bytes of content/],
      [batch({ pages: Uint32Array.of(1), content: new Uint8Array(4096) }), /4096 bytes of content/],
      [batch({ pages: Uint32Array.of(1), kinds: Uint8Array.of(9) }), /kind 9/],
      [batch({ pages: Uint32Array.of(1, 2), kinds: Uint8Array.of(1) }), /2 pages and 1 kinds/],
    ];
    for (const [item, message] of refused) expect(() => ready().encodePages(item)).toThrow(message);
  });

  it('refuses huge pages in pieces where they have to be whole', () => {
    const encoder = ready();
    const run = (first: number, count: number): PageBatch =>
      batch({ pages: Uint32Array.from({ length: count }, (_, i) => first + i) });
    expect(encoder.encodePages(run(1, 3))).not.toHaveLength(0);
    encoder.wholeHostPages = true;
    expect(encoder.encodePages(run(512, 512))).not.toHaveLength(0);
    for (const item of [run(512, 500), run(513, 512)]) {
      expect(() => encoder.encodePages(item)).toThrow(/whole host pages/);
    }
  });

  it('refuses pages before the layout, and a layout that is not the stream’s own', () => {
    const item = batch({ pages: Uint32Array.of(1) });
    expect(() => new StreamEncoder().encodePages(item)).toThrow(/before the stream has told its layout/);
    const encoder = ready();
    const layout = encoder.layout!;
    encoder.checkLayout(layout);
    expect(() => encoder.checkLayout({ blocks: layout.blocks.slice(1) })).toThrow(
      /is not the one in its stream/,
    );
  });

  it('replays verbatim streams as they are and takes no pages for them', () => {
    const encoder = new StreamEncoder();
    const bytes = Buffer.concat([
      new ModelStream().header('q35').bytes,
      Buffer.from([4, 0, 0, 0, 1, 3]),
      Buffer.alloc(99),
    ]);
    for (const chunk of cut(bytes, [3, 50, 70])) expect(encoder.opaque(chunk)).toBe(chunk);
    expect(encoder.layout).toBeUndefined();
    expect(() => encoder.encodePages(batch({ pages: Uint32Array.of(1) }))).toThrow(/layout/);
  });
});
