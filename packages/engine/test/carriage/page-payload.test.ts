import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodePageList, encodePageList, maxPageListBytes } from '../../src/carriage/page-payload.ts';
import { PayloadError } from '../../src/carriage/payload-error.ts';
import { PAGE_BYTES } from '../../src/units.ts';

const blockPages = 4096;

function payloadOf(pages: Uint32Array, kinds: Uint8Array, offset = 0): Uint8Array {
  const raw = kinds.filter((kind) => kind === 0).length;
  const target = new Uint8Array(offset + maxPageListBytes(pages.length) + raw * PAGE_BYTES);
  const end = encodePageList({ pages, kinds }, target, offset);
  return target.subarray(offset, end + raw * PAGE_BYTES);
}

const batch = fc
  .array(fc.tuple(fc.nat(blockPages - 40), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 1 })), {
    maxLength: 20,
  })
  .map((runs) => {
    const list = runs.flatMap(([first, length, kind]) =>
      Array.from({ length }, (_, step) => [first + step, kind] as const),
    );
    return {
      pages: Uint32Array.from(list, ([page]) => page),
      kinds: Uint8Array.from(list, ([, kind]) => kind),
    };
  });

describe('the page payload', () => {
  it('gives back every page and kind in order, wherever it was written', () => {
    fc.assert(
      fc.property(batch, fc.nat(9), ({ pages, kinds }, offset) => {
        const payload = payloadOf(pages, kinds, offset);
        const list = decodePageList(payload, { blockPages });
        expect(list.pages).toEqual(pages);
        expect(list.kinds).toEqual(kinds);
        expect(list.contentOffset).toBeLessThanOrEqual(maxPageListBytes(pages.length));
      }),
    );
  });

  it('takes a full batch of consecutive pages in twelve bytes', () => {
    const pages = Uint32Array.from({ length: 64 }, (_, index) => 100 + index);
    expect(encodePageList({ pages, kinds: new Uint8Array(64) }, new Uint8Array(600), 0)).toBe(12);
  });

  it('refuses a page outside the block', () => {
    const payload = payloadOf(Uint32Array.of(7, 8), Uint8Array.of(1, 1));
    expect(() => decodePageList(payload, { blockPages: 8 })).toThrow(PayloadError);
    expect(decodePageList(payload, { blockPages: 9 }).pages).toEqual(Uint32Array.of(7, 8));
  });

  it('refuses content that is longer or shorter than its raw pages', () => {
    const payload = payloadOf(Uint32Array.of(1), Uint8Array.of(0));
    expect(() => decodePageList(payload.subarray(0, -1), { blockPages })).toThrow(/bytes of content/);
    const longer = new Uint8Array(payload.length + 1);
    longer.set(payload);
    expect(() => decodePageList(longer, { blockPages })).toThrow(/bytes of content/);
  });

  it('refuses more pages than the receiver allows before it makes room for them', () => {
    const payload = new Uint8Array(12);
    const view = new DataView(payload.buffer);
    view.setUint32(0, 1, true);
    view.setUint32(8, 2 ** 28 + 2 ** 28 - 1, true);
    expect(() => decodePageList(payload, { blockPages: 2 ** 31 })).toThrow(/more than 262144 pages/);
  });

  it('never does anything but decode or refuse, whatever arrives', () => {
    let decoded = 0;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(3), (garbage, runs) => {
        if (garbage.length > 0) garbage[0] = runs;
        if (garbage.length > 3) garbage.fill(0, 1, 4);
        try {
          const list = decodePageList(garbage, { blockPages });
          for (const page of list.pages) expect(page).toBeLessThan(blockPages);
          expect(list.pages.length).toBe(list.kinds.length);
          decoded += 1;
        } catch (error) {
          expect(error).toBeInstanceOf(PayloadError);
        }
      }),
      { numRuns: 2000 },
    );
    expect(decoded).toBeGreaterThan(0);
  });

  it('refuses or survives every flipped bit of a list', () => {
    const pages = Uint32Array.of(1, 2, 3, 9, 10, 4000);
    const payload = payloadOf(pages, Uint8Array.of(1, 1, 1, 1, 1, 1));
    for (let bit = 0; bit < payload.length * 8; bit += 1) {
      const flipped = payload.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      try {
        for (const page of decodePageList(flipped, { blockPages }).pages)
          expect(page).toBeLessThan(blockPages);
      } catch (error) {
        expect(error).toBeInstanceOf(PayloadError);
      }
    }
  });
});
