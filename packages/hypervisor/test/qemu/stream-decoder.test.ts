import type { PageBatch } from '@vmferry/engine/guest';
import { round } from '@vmferry/engine/units';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DecodedItem } from '../../src/qemu/stream/decoded.ts';
import { StreamDecoder } from '../../src/qemu/stream/decoder.ts';
import { StreamError } from '../../src/qemu/stream/error.ts';
import { cuts, postcopyStream, precopyStream } from './support/stream/arbitrary.ts';
import { ModelStream, named, raw, twoBlocks, u32, u64 } from './support/stream/model.ts';
import { CheckedPool, cut, decode, decodeAll, tell } from './support/stream/told.ts';

const anyStream = fc.oneof(precopyStream, postcopyStream);

function batches(items: readonly DecodedItem[]): PageBatch[] {
  return items.filter((item) => item.type === 'pages');
}

/** A RAM setup whose total and whose only block are as told. */
function layoutOf(total: number, size: number): Buffer {
  const setup = new ModelStream().header().opaque(Buffer.from([1]), u32(2), named('ram'), u32(0), u32(4));
  return setup.opaque(u64(total + 4), named('pc.ram'), u64(size)).bytes;
}

describe('the stream decoder', () => {
  it('tells what was written, wherever the input is cut', () => {
    fc.assert(
      fc.property(anyStream, cuts, fc.integer({ min: 1, max: 20 }), (stream, places, batchPages) => {
        const decoder = new StreamDecoder({ batchPages });
        expect(tell(decodeAll(decoder, cut(stream.bytes, places)))).toEqual(stream.told);
        expect(decoder.finish().state).toBe(decoder.inPostcopy ? 'whole' : 'opaque');
        expect(decoder.counts.bytes).toBe(stream.bytes.length);
      }),
      { numRuns: 300 },
    );
  });

  it('takes new limits for the batches that it begins from then on', () => {
    const pages = Array.from({ length: 20 }, (_, page) => raw(0, page));
    const stream = new ModelStream().header().advise(4096).setup(twoBlocks).part(pages);
    const middle = stream.bytes.length;
    stream.part(pages);
    const postcopy = stream.bytes.length;
    stream
      .packaged(Buffer.from([8]))
      .part(pages)
      .end()
      .eof();
    const decoder = new StreamDecoder({ batchPages: 10, postcopyBatch: { rawPages: 5, pages: 5 } });
    const sizes = (from: number, to: number): number[] =>
      batches(decodeAll(decoder, [stream.bytes.subarray(from, to)])).map((batch) => batch.pages.length);
    expect(sizes(0, middle)).toEqual([10, 10]);
    const limit = (precopy: number, postcopy: number): void =>
      decoder.limitBatches({ rawPages: precopy, pages: precopy }, { rawPages: postcopy, pages: postcopy });
    limit(4, 5);
    expect(sizes(middle, postcopy)).toEqual([4, 4, 4, 4, 4]);
    limit(20, 10);
    expect(sizes(postcopy, postcopy + 40)).toEqual([]);
    expect(sizes(postcopy + 40, stream.bytes.length)).toEqual([10, 10]);
    expect(() => decoder.limitBatches({ rawPages: 3, pages: 2 }, { rawPages: 1, pages: 1 })).toThrow(
      RangeError,
    );
  });

  it('makes the same batches whether each page is asked for its lane or runs are read at once', () => {
    const limits = fc
      .tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 20 }))
      .map(([rawPages, more]) => ({ rawPages, pages: rawPages + more }));
    fc.assert(
      fc.property(anyStream, cuts, limits, limits, (stream, places, batch, postcopyBatch) => {
        const shape = (ask: boolean): unknown => {
          const { rawPages: batchPages, pages: batchPagesInAll } = batch;
          const decoder = new StreamDecoder({ batchPages, batchPagesInAll, postcopyBatch });
          if (ask) decoder.isUrgent = () => false;
          const items = decodeAll(decoder, cut(stream.bytes, places));
          const shapes = batches(items).map(({ block, pages, kinds }) => [block, [...pages], [...kinds]]);
          return [shapes, tell(items), decoder.counts];
        };
        expect(shape(false)).toEqual(shape(true));
      }),
      { numRuns: 300 },
    );
  });

  it('fills a batch by its content, and lets pages of zeroes go along', () => {
    const pages = Array.from({ length: 40 }, (_, page) => raw(0, page, page % 4 === 3 ? 1 : 0));
    const stream = new ModelStream().header().setup(twoBlocks).part(pages).end();
    const shapes = (batchPagesInAll: number): number[][] =>
      batches(decodeAll(new StreamDecoder({ batchPages: 3, batchPagesInAll }), [stream.bytes])).map(
        ({ pages, content }) => [pages.length, content.length / 4096],
      );
    expect(shapes(100)).toEqual([...Array(3).fill([12, 3]), [4, 1]]);
    expect(shapes(10)).toEqual([
      [10, 2],
      [10, 3],
      [10, 2],
      [10, 3],
    ]);
    expect(() => new StreamDecoder({ batchPages: 3, batchPagesInAll: 2 })).toThrow(RangeError);
  });

  it('makes smaller batches as soon as post-copy has begun', () => {
    const pages = Array.from({ length: 20 }, (_, page) => raw(0, page));
    const stream = new ModelStream().header().advise(4096).setup(twoBlocks).part(pages);
    stream
      .packaged(Buffer.from([8]))
      .part(pages)
      .end()
      .eof();
    const decoder = new StreamDecoder({ batchPages: 20, postcopyBatch: { rawPages: 5, pages: 5 } });
    const sizes = batches(decodeAll(decoder, [stream.bytes])).map((batch) => batch.pages.length);
    expect(sizes).toEqual([20, 5, 5, 5, 5]);
  });

  it('makes the same batches of one chunk, of many and of single bytes', () => {
    fc.assert(
      fc.property(precopyStream, cuts, (stream, places) => {
        const shape = (chunks: Uint8Array[]): unknown =>
          batches(decodeAll(new StreamDecoder({ batchPages: 5 }), chunks)).map(({ block, pages, kinds }) => [
            block,
            [...pages],
            [...kinds],
          ]);
        expect(shape(cut(stream.bytes, places))).toEqual(shape([stream.bytes]));
      }),
      { numRuns: 100 },
    );
    const small = new ModelStream()
      .header('q35')
      .setup(twoBlocks)
      .part([raw(0, 1), raw(0, 2, 0), raw(1, 3)])
      .end();
    const single = Array.from(small.bytes, (_, i) => small.bytes.subarray(i, i + 1));
    expect(tell(decodeAll(new StreamDecoder({ batchPages: 4 }), single))).toEqual(small.told);
  });

  it('waits neither with pages nor with bytes past the end of a chunk when it is told so', () => {
    fc.assert(
      fc.property(postcopyStream, cuts, (stream, places) => {
        const decoder = new StreamDecoder({ batchPages: 64 });
        decoder.flushAtChunkEnd = true;
        expect(tell(decodeAll(decoder, cut(stream.bytes, places)))).toEqual(stream.told);
      }),
      { numRuns: 100 },
    );
    const stream = new ModelStream()
      .header()
      .setup(twoBlocks)
      .open(2, [raw(0, 7), raw(0, 8)]);
    const items = (flush: boolean): number => {
      const decoder = new StreamDecoder({ batchPages: 64 });
      decoder.flushAtChunkEnd = flush;
      return batches(decodeAll(decoder, [stream.bytes])).length;
    };
    expect(items(true)).toBe(1);
    expect(items(false)).toBe(0);
  });

  it('never hangs or crashes on broken input: it ends in a StreamError, verbatim, or early', () => {
    const damage = fc.array(fc.tuple(fc.nat(2 ** 20), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        anyStream,
        damage,
        fc.nat(2 ** 20),
        fc.boolean(),
        cuts,
        (stream, spots, end, front, places) => {
          const bytes = Buffer.from(stream.bytes);
          // Most bytes are page content: half of the time aim at the framing at the front.
          const range = front ? Math.min(400, bytes.length) : bytes.length;
          for (const [at, value] of spots) bytes[at % range] = value;
          const pool = new CheckedPool();
          const decoder = new StreamDecoder({ batchPages: 6, allocate: pool.allocate });
          let opaque = 0;
          try {
            for (const chunk of cut(bytes.subarray(0, bytes.length - (end % 50)), places)) {
              for (const item of decoder.decode(chunk)) {
                if (item.type === 'pages') item.release();
                else if (item.type === 'opaque') opaque += item.bytes.length;
              }
            }
          } catch (error) {
            expect(error).toBeInstanceOf(StreamError);
            expect(error).toMatchObject({ code: 'E_STREAM' });
            expect(() => decoder.next()).toThrow(StreamError);
          }
          decoder.finish();
          // Every batch was released above, so what is missing would have leaked inside.
          expect(pool.released).toBe(pool.taken);
          expect(opaque).toBeLessThanOrEqual(bytes.length + 10_000);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('takes no more blocks than its limit', () => {
    const decoder = new StreamDecoder({ batchPages: 4 });
    const blocks = Array.from({ length: 4097 }, (_, i) => ({ name: `b${i}`, pages: 1 }));
    expect(() => decodeAll(decoder, [new ModelStream().header().setup(blocks).bytes])).toThrow(/4096 blocks/);
  });

  it('says where a stream that ends too early ends', () => {
    const stream = new ModelStream()
      .header('q35')
      .setup(twoBlocks)
      .open(2, [raw(0, 7)]);
    const decoder = new StreamDecoder({ batchPages: 4 });
    decodeAll(decoder, [stream.bytes.subarray(0, -20)]);
    expect(decoder.finish()).toEqual({ state: 'truncated', where: 'RAM section' });
  });

  it('refuses framing that is broken', () => {
    const start = (): ModelStream => new ModelStream().header().setup(twoBlocks);
    const id = u32(2);
    const cases: [Buffer, RegExp][] = [
      [Buffer.from('not a migration'), /not a migration stream/],
      [Buffer.concat([Buffer.from('QEVM'), u32(2)]), /version 2/],
      [start().swallowed(Buffer.from([2]), u32(9)).bytes, /Section 9/],
      [start().swallowed(Buffer.from([2]), id, u64(0x08), named('nobody')).bytes, /"nobody"/],
      [start().swallowed(Buffer.from([2]), id, u64(0x28)).bytes, /names no block/],
      [start().open(2, [raw(0, 64)]).bytes, /outside block pc.ram/],
      [
        start()
          .open(2, [raw(0, 1)])
          .swallowed(u64(0x10), Buffer.from([0]), id).bytes,
        /without its footer/,
      ],
      [
        start()
          .open(2, [])
          .swallowed(u64(0x10), Buffer.from([0x7e]), u32(3)).bytes,
        /without its footer/,
      ],
      [start().swallowed(Buffer.from([0x7e]), id).bytes, /footer stands/],
      [start().eof().bytes, /before RAM does/],
      [layoutOf(8192, 12_288), /12288 bytes, with 8192 left/],
      [layoutOf(8192, 4000), /4000 bytes/],
      [layoutOf(0, 0), /not sane/],
      [start().discard(1, [[0, 17 * 4096]]).bytes, /discard reaches byte/],
      [start().discard(1, [[100, 4096]]).bytes, /whole pages/],
      [new ModelStream().header().command(2, Buffer.alloc(3), 'ping').bytes, /ping command carries 3/],
      [new ModelStream().header().setup([...twoBlocks, twoBlocks[0]!]).bytes, /twice/],
      [new ModelStream().header().setup([{ name: '', pages: 1 }]).bytes, /without letters/],
    ];
    for (const [bytes, message] of cases) expect(() => decode(bytes), String(message)).toThrow(message);
  });

  it('holds device state to its limit and passes it on without gathering it', () => {
    const blob = Buffer.alloc(700_000, 3);
    const stream = new ModelStream().header().advise(4096).setup(twoBlocks).packaged(blob);
    expect(() =>
      decodeAll(new StreamDecoder({ batchPages: 4, maxPackagedBytes: 699_999 }), [stream.bytes]),
    ).toThrow(/limit/);
    const decoder = new StreamDecoder({ batchPages: 4 });
    const opaque = decodeAll(decoder, [stream.bytes]).filter((item) => item.type === 'opaque');
    expect(Math.max(...opaque.map((item) => item.bytes.length))).toBe(256 * 1024);
    const all = Buffer.concat(opaque.map((item) => item.bytes));
    expect(all.equals(stream.bytes)).toBe(true);
  });

  it('gives each batch one block, one lane and one round', () => {
    const stream = new ModelStream()
      .header()
      .setup(twoBlocks)
      .part([raw(0, 1), raw(0, 2), raw(0, 3), raw(1, 3), raw(1, 4)])
      .part([raw(1, 5)]);
    const decoder = new StreamDecoder({ batchPages: 8 });
    decoder.round = round(3);
    decoder.isUrgent = (block, page) => block === 0 && page === 2;
    const found = batches(decodeAll(decoder, [stream.bytes]));
    expect(found.map(({ block, lane, pages }) => [block, lane, [...pages]])).toEqual([
      [0, 'bulk', [1]],
      [0, 'express', [2]],
      [0, 'bulk', [3]],
      [1, 'bulk', [3, 4]],
      [1, 'bulk', [5]],
    ]);
    expect(found.every((batch) => batch.round === 3)).toBe(true);
  });

  it('ends a batch where the round is set anew', () => {
    const stream = new ModelStream()
      .header()
      .setup(twoBlocks)
      .open(2, [raw(0, 1)]);
    const decoder = new StreamDecoder({ batchPages: 8 });
    const items = decodeAll(decoder, [stream.bytes]);
    decoder.round = round(2);
    const rest = new ModelStream()
      .header()
      .setup(twoBlocks)
      .open(2, [raw(0, 2)])
      .close();
    const at = rest.bytes.length - 13 - 4096 - 8 - 7;
    const record = Buffer.concat([u64(2 * 4096 + 0x28), rest.bytes.subarray(at + 8 + 7)]);
    items.push(...decodeAll(decoder, [record]));
    expect(batches(items).map((batch) => [batch.round, [...batch.pages]])).toEqual([
      [1, [1]],
      [2, [2]],
    ]);
  });

  it('applies settings from the very item on at which they are changed', () => {
    const stream = new ModelStream()
      .header()
      .setup(twoBlocks)
      .part([raw(0, 1)])
      .part([raw(0, 2)]);
    const decoder = new StreamDecoder({ batchPages: 8 });
    const rounds: number[] = [];
    decoder.push(stream.bytes);
    for (let item = decoder.next(); item !== undefined; item = decoder.next()) {
      if (item.type !== 'pages') continue;
      rounds.push(item.round);
      decoder.round = round(item.round + 1);
    }
    expect(rounds).toEqual([1, 2]);
  });

  it('turns fill records into zero pages, or into raw pages of their byte', () => {
    const stream = new ModelStream()
      .header()
      .setup(twoBlocks)
      .part([raw(0, 1, 0), raw(0, 2, -9)]);
    const [batch] = batches(decode(stream.bytes));
    expect([...batch!.kinds]).toEqual([1, 0]);
    expect(batch!.content).toEqual(new Uint8Array(4096).fill(9));
  });
});

describe('in post-copy the stream decoder', () => {
  const huge = [
    { name: 'pc.ram', pages: 2048, pageBytes: 2 ** 21 },
    { name: 'vga.vram', pages: 16 },
  ];
  const start = (): ModelStream =>
    new ModelStream()
      .header('q35')
      .advise(4096 + 2 ** 21)
      .setup(huge)
      .packaged(Buffer.from('state'));
  const hugePage = (first: number, count = 512): { block: number; page: number; seed: number }[] =>
    Array.from({ length: count }, (_, i) => raw(0, first + i, i % 3));

  it('keeps huge pages whole, in order, in batches of their own', () => {
    const stream = start()
      .part([...hugePage(512), ...hugePage(1536), raw(1, 3), raw(1, 9)])
      .end()
      .eof();
    const decoder = new StreamDecoder({ batchPages: 4 });
    decoder.isUrgent = (_, page) => page === 1536;
    decoder.flushAtChunkEnd = true;
    const found = batches(decodeAll(decoder, cut(stream.bytes, [900_000, 1_700_001])));
    expect(found.map(({ block, lane, pages }) => [block, lane, pages[0], pages.length])).toEqual([
      [0, 'bulk', 512, 512],
      [0, 'express', 1536, 512],
      [1, 'bulk', 3, 2],
    ]);
    expect([...found[0]!.pages]).toEqual(Array.from({ length: 512 }, (_, i) => 512 + i));
    expect(decoder.finish()).toEqual({ state: 'whole' });
  });

  it('refuses a huge page that is broken off, out of order or begun in the middle', () => {
    for (const pages of [
      hugePage(512, 500),
      [...hugePage(512, 500), raw(1, 3)],
      [...hugePage(512, 2), raw(0, 520)],
      hugePage(513),
    ]) {
      expect(() => decode(start().part(pages).bytes)).toThrow(/huge page/);
    }
  });

  it('takes host pages of the whole host for what the summary says', () => {
    const blocks = [
      { name: 'ram', pages: 64 },
      { name: 'hugetlb', pages: 1024, pageBytes: 2 ** 21 },
    ];
    const stream = new ModelStream()
      .header()
      .advise(65536 + 2 ** 21)
      .setup(blocks, { hostPage: 65536 });
    expect(tell(decode(stream.bytes))).toEqual(stream.told);
  });

  it('does not go on verbatim, where pages would be lost', () => {
    const stream = start()
      .part([raw(1, 3)])
      .swallowed(Buffer.from([4]), u32(7));
    expect(() => decode(stream.bytes)).toThrow(/cannot go on verbatim/);
  });
});
