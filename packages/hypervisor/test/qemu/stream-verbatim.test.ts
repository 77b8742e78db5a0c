import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StreamDecoder } from '../../src/qemu/stream/decoder.ts';
import { cuts, xbzrleRecord } from './support/stream/arbitrary.ts';
import { ModelStream, named, raw, type Told, twoBlocks, u32, u64 } from './support/stream/model.ts';
import { cut, decode, decodeAll, tell } from './support/stream/told.ts';

describe('what the stream decoder does not know it carries verbatim:', () => {
  const rest = Buffer.from('whatever follows, to the end');

  function expectVerbatim(stream: ModelStream, told: Told[], why: RegExp): void {
    fc.assert(
      fc.property(cuts, (places) => {
        const decoder = new StreamDecoder({ batchPages: 8 });
        const found = tell(decodeAll(decoder, cut(stream.bytes, places)));
        const at = found.findIndex((item) => item.type === 'verbatim');
        expect(found[at]).toMatchObject({ text: expect.stringMatching(why) });
        expect(found).toEqual([...told.slice(0, at), found[at], ...told.slice(at)]);
        expect(decoder.finish()).toEqual({ state: 'opaque' });
      }),
      { numRuns: 40 },
    );
  }

  it('an iterable section that is not RAM', () => {
    const stream = new ModelStream().header('q35').setup(twoBlocks);
    stream.opaque(Buffer.from([1]), u32(5), named('vfio'), u32(0), u32(1), rest);
    expectVerbatim(stream, stream.told, /"vfio"/);
  });

  it('device state before RAM', () => {
    const stream = new ModelStream().header('q35').ping(1);
    stream.opaque(Buffer.from([4]), u32(5), named('virtio-mem'), u32(0), u32(1), rest);
    // Bytes on both sides of the notice are opaque and lie side by side.
    const split = tell(decode(new ModelStream().header('q35').ping(1).bytes));
    const tail = Buffer.concat([Buffer.from([4]), u32(5), named('virtio-mem'), u32(0), u32(1), rest]);
    expectVerbatim(
      stream,
      [...split, { type: 'opaque', hex: tail.toString('hex') }],
      /before the end of RAM/,
    );
  });

  it('capabilities that change the stream, other page sizes, unknown parts of the configuration', () => {
    const before = tell(decode(new ModelStream().header('q35').bytes));
    const capability = Buffer.concat([u32(1), named('x-ignore-shared')]);
    for (const [name, body, why] of [
      ['configuration/capabilities', capability, /x-ignore-shared/],
      ['configuration/target-page-bits', u32(14), /14 bits/],
      ['configuration/new', Buffer.alloc(3), /configuration\/new/],
    ] as const) {
      const tail = Buffer.concat([Buffer.from([5]), named(name), u32(1), body, rest]);
      const stream = new ModelStream().header('q35').opaque(tail);
      expectVerbatim(stream, [...before, { type: 'opaque', hex: tail.toString('hex') }], why);
    }
  });

  it('a RAM setup with words it cannot name, from the start of that section', () => {
    const blocks = [{ name: 'pc.ram', pages: 4 }];
    const before = tell(decode(new ModelStream().header('q35').bytes));
    const size = before[0]?.type === 'opaque' ? before[0].hex.length / 2 : 0;
    for (const [words, why] of [
      [[u64(0x200)], /flags 0x200/],
      [[u64(0x100000000)], /flags 0x0/],
    ] as const) {
      const stream = new ModelStream().header('q35').setup(blocks, { words: [...words] });
      const tail = stream.bytes.subarray(size).toString('hex');
      expectVerbatim(stream, [...before, { type: 'opaque', hex: tail }], why);
    }
  });

  it('XBZRLE pages, whose block it names anew', () => {
    const stream = new ModelStream()
      .header('q35')
      .setup(twoBlocks)
      .part([raw(1, 2)])
      .open(2, [raw(1, 3)]);
    const record = xbzrleRecord(Buffer.from('delta'));
    stream.swallowed(u64(2 * 4096 + 0x60), record, rest);
    const head = Buffer.concat([Buffer.from([2]), u32(2), u64(2 * 4096 + 0x40), named('vga.vram')]);
    const told: Told[] = [
      ...stream.told,
      { type: 'opaque', hex: Buffer.concat([head, record, rest]).toString('hex') },
    ];
    expectVerbatim(stream, told, /XBZRLE/);
  });

  it('records of unknown kinds between pages, after the newest page once more, so that the block is known', () => {
    for (const seed of [3, 0]) {
      const stream = new ModelStream()
        .header('q35')
        .setup(twoBlocks)
        .open(2, [raw(0, 1), raw(0, 9, seed)]);
      stream.swallowed(u64(0x400), rest);
      const again = new ModelStream()
        .header('q35')
        .setup(twoBlocks)
        .part([raw(0, 9, seed)]).bytes;
      const prefix = new ModelStream().header('q35').setup(twoBlocks).bytes.length;
      const tail = Buffer.concat([again.subarray(prefix), Buffer.from([2]), u32(2), u64(0x400), rest]);
      expectVerbatim(
        stream,
        [...stream.told, { type: 'opaque', hex: tail.toString('hex') }],
        /unknown records/,
      );
    }
  });

  it('COLO', () => {
    const stream = new ModelStream().header().opaque(Buffer.from([8, 0, 8, 0, 0]), rest);
    const before = tell(decode(new ModelStream().header().bytes));
    const tail = Buffer.concat([Buffer.from([8, 0, 8, 0, 0]), rest]).toString('hex');
    expectVerbatim(stream, [...before, { type: 'opaque', hex: tail }], /COLO/);
  });
});
