import { Cursor, newCursor, readRecords } from '@vmferry/native/ram-records';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const PAGE = 4096;
const RAW = 0x28;
const FILL = 0x22;

interface Made {
  readonly flags: number;
  readonly page: bigint;
  readonly fill: number;
}

/** Mostly the two that are understood, in the block; sometimes neither, or far outside. */
const record: fc.Arbitrary<Made> = fc.record({
  flags: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(RAW, FILL) },
    { weight: 1, arbitrary: fc.constantFrom(0x08, 0x02, 0x10, 0x2a, 0x60, 0x228) },
  ),
  page: fc.oneof(
    { weight: 20, arbitrary: fc.bigInt({ min: 0n, max: 30n }) },
    { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 52n - 1n }) },
  ),
  fill: fc.oneof({ weight: 15, arbitrary: fc.constant(0) }, fc.nat(255)),
});

function bytesOf({ flags, page, fill }: Made): Buffer {
  const out = Buffer.alloc(flags & 0x08 ? 8 + PAGE : 9, fill);
  out.writeBigUInt64BE((page << 12n) | BigInt(flags));
  if (flags & 0x08) out.writeBigUInt64LE(page, 100);
  return out;
}

interface Run {
  readonly input: Uint8Array;
  readonly cursor: Float64Array;
  readonly pages: Uint32Array;
  readonly kinds: Uint8Array;
  readonly content: Uint8Array;
}

/** What must come of it, written down as plainly as can be. */
function model({ input, cursor, pages, kinds, content }: Run): void {
  const at = (place: keyof typeof Cursor): number => cursor[Cursor[place]]!;
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  for (;;) {
    const left = at('end') - at('position');
    if (left < 9 || at('count') === at('maxPages')) return;
    const word = view.getBigUint64(at('position'));
    const flags = Number(word & 0xfffn);
    const from = at('position') + 8;
    if (word >> 12n >= BigInt(at('blockPages'))) return;
    if (flags === RAW) {
      if (left < 8 + PAGE || at('contentEnd') + PAGE > at('maxContent')) return;
      content.set(input.subarray(from, from + PAGE), at('contentEnd'));
      cursor[Cursor.contentEnd] = at('contentEnd') + PAGE;
      cursor[Cursor.position] = from + PAGE;
    } else if (flags === FILL && input[from] === 0) {
      cursor[Cursor.position] = from + 1;
    } else return;
    pages[at('count')] = Number(word >> 12n);
    kinds[at('count')] = flags === RAW ? 0 : 1;
    cursor[Cursor.count] = at('count') + 1;
    if (flags === RAW && at('contentEnd') + PAGE > at('maxContent')) return;
  }
}

const run: fc.Arbitrary<() => Run> = fc
  .record({
    records: fc.array(record, { maxLength: 24 }),
    before: fc.nat(20),
    cutOff: fc.oneof(fc.constant(0), fc.nat(6000)),
    blockPages: fc.constantFrom(0, 20, 31, 2 ** 32),
    count: fc.nat(4),
    pagesRoom: fc.nat(24),
    filledBytes: fc.nat(2 * PAGE),
    contentRoom: fc.nat(16 * PAGE),
  })
  .map((made) => () => {
    const input = Buffer.concat([Buffer.alloc(made.before, 0xee), ...made.records.map(bytesOf)]);
    const cursor = newCursor();
    cursor[Cursor.position] = made.before;
    cursor[Cursor.end] = Math.max(made.before, input.length - made.cutOff);
    cursor[Cursor.blockPages] = made.blockPages;
    cursor[Cursor.count] = made.count;
    cursor[Cursor.maxPages] = made.count + made.pagesRoom;
    cursor[Cursor.contentEnd] = made.filledBytes;
    cursor[Cursor.maxContent] = made.filledBytes + made.contentRoom;
    return {
      input,
      cursor,
      pages: new Uint32Array(made.count + made.pagesRoom + 2).fill(7),
      kinds: new Uint8Array(made.count + made.pagesRoom + 2).fill(7),
      content: new Uint8Array(made.filledBytes + made.contentRoom + 100).fill(7),
    };
  });

function read({ cursor, input, pages, kinds, content }: Run): void {
  readRecords(cursor, input, pages, kinds, content);
}

describe('a run of records', () => {
  test('comes to what the model makes of it, and touches nothing else', () => {
    let records = 0;
    fc.assert(
      fc.property(run, (make) => {
        const [wanted, found] = [make(), make()];
        model(wanted);
        read(found);
        expect(found.cursor).toEqual(wanted.cursor);
        for (const name of ['pages', 'kinds', 'content', 'input'] as const) {
          expect(Buffer.compare(bytesIn(found[name]), bytesIn(wanted[name])), name).toBe(0);
        }
        records += found.cursor[Cursor.count]!;
      }),
      { numRuns: 2000 },
    );
    expect(records).toBeGreaterThan(2000);
  });

  test('is taken up again where it stopped for want of room', () => {
    const input = Buffer.concat(
      [1n, 2n, 3n].map((page) => bytesOf({ flags: RAW, page, fill: Number(page) })),
    );
    const cursor = newCursor();
    const run = {
      input,
      cursor,
      pages: new Uint32Array(3),
      kinds: new Uint8Array(3),
      content: new Uint8Array(PAGE),
    };
    cursor[Cursor.end] = input.length;
    cursor[Cursor.blockPages] = 4;
    cursor[Cursor.maxPages] = 3;
    cursor[Cursor.maxContent] = PAGE;
    for (const page of [1, 2, 3]) {
      cursor[Cursor.contentEnd] = 0;
      read(run);
      expect(cursor[Cursor.count]).toBe(page);
      expect(run.content[500]).toBe(page);
    }
    expect(cursor[Cursor.position]).toBe(input.length);
    expect(run.pages).toEqual(Uint32Array.of(1, 2, 3));
  });

  test('refuses a cursor that does not fit its arrays', () => {
    const fitting = (): Run => {
      const input = bytesOf({ flags: FILL, page: 1n, fill: 0 });
      const cursor = Float64Array.of(0, input.length, 4, 0, 2, 0, PAGE);
      return {
        input,
        cursor,
        pages: new Uint32Array(2),
        kinds: new Uint8Array(2),
        content: new Uint8Array(PAGE),
      };
    };
    const good = fitting();
    read(good);
    expect(good.cursor[Cursor.count]).toBe(1);
    const wrong: [keyof typeof Cursor, number][] = [
      ['position', 10],
      ['position', -1],
      ['position', 0.5],
      ['position', Number.NaN],
      ['end', 10],
      ['blockPages', 2 ** 32 + 1],
      ['count', 3],
      ['maxPages', 3],
      ['contentEnd', PAGE + 1],
      ['maxContent', PAGE + 1],
      ['maxContent', Number.POSITIVE_INFINITY],
    ];
    for (const [place, value] of wrong) {
      const run = fitting();
      run.cursor[Cursor[place]] = value;
      const before = run.cursor.slice();
      expect(() => read(run), `${place} ${value}`).toThrow(
        expect.objectContaining({ name: 'NativeError', code: 'E_NATIVE_BOUNDS' }),
      );
      expect(run.cursor).toEqual(before);
    }
    const { input, pages, kinds, content, cursor } = fitting();
    const bounds = expect.objectContaining({ code: 'E_NATIVE_BOUNDS' });
    expect(() => readRecords(cursor.subarray(1), input, pages, kinds, content)).toThrow(bounds);
    expect(() => readRecords(cursor, input, pages, kinds.subarray(1), content)).toThrow(bounds);
    expect(() => readRecords(cursor, input, kinds as unknown as Uint32Array, kinds, content)).toThrow(bounds);
  });
});

function bytesIn({ buffer, byteOffset, byteLength }: Uint8Array | Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
