import { type PageBatch, PageKind } from '@vmferry/engine/guest';
import { cutBatch } from '@vmferry/engine/postcopy/cut';
import { blockIndex, bytes, PAGE_BYTES, round } from '@vmferry/engine/units';
import fc from 'fast-check';
import { expect, test } from 'vitest';

/** A batch of pages 0, 1, …, each raw page full of its own number. */
function batchOf(kinds: readonly number[], onRelease: () => void): PageBatch {
  const raw = [...kinds.keys()].filter((page) => kinds[page] === PageKind.raw);
  const content = new Uint8Array(raw.length * PAGE_BYTES);
  for (const [at, page] of raw.entries()) content.fill(page, at * PAGE_BYTES, (at + 1) * PAGE_BYTES);
  return {
    type: 'pages',
    block: blockIndex(2),
    round: round(3),
    lane: 'bulk',
    pages: Uint32Array.from(kinds.keys()),
    kinds: Uint8Array.from(kinds),
    content,
    headroomBytes: bytes(0),
    release: onRelease,
  };
}

test('the parts hold the pages of the batch with their content, and its memory goes back with the last part', () => {
  const kinds = fc.array(fc.constantFrom(PageKind.raw, PageKind.zero), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(kinds, fc.nat(40), fc.nat(40), (of, a, b) => {
      const from = Math.min(a, b, of.length);
      const to = Math.min(Math.max(a, b), of.length);
      let released = 0;
      const { before, middle, after } = cutBatch(
        batchOf(of, () => {
          released += 1;
        }),
        from,
        to,
      );
      const parts = [before, middle, after];
      expect(parts.map((part) => part?.pages.length ?? 0)).toEqual([from, to - from, of.length - to]);
      const there = parts.filter((part) => part !== undefined);
      expect(there.flatMap((part) => [...part.pages])).toEqual([...of.keys()]);
      for (const part of there) {
        expect([part.block, part.round, part.lane]).toEqual([2, 3, 'bulk']);
        const raw = [...part.pages].filter((_, index) => part.kinds[index] === PageKind.raw);
        expect(part.content.length).toBe(raw.length * PAGE_BYTES);
        for (const [at, page] of raw.entries()) expect(part.content[at * PAGE_BYTES]).toBe(page);
        expect(released).toBe(0);
      }
      for (const part of there) part.release();
      expect(released).toBe(1);
    }),
  );
});
