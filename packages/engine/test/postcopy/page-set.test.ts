import { PageSet } from '@vmferry/engine/postcopy/page-set';
import { blockIndex, pages } from '@vmferry/engine/units';
import fc from 'fast-check';
import { expect, test } from 'vitest';

test('a page set holds what a set of pairs would hold', () => {
  const page = fc.tuple(fc.nat(2), fc.nat(99));
  fc.assert(
    fc.property(fc.array(page), (added) => {
      const set = new PageSet([pages(100), pages(33), pages(64)]);
      const model = new Set<string>();
      for (const [block, page] of added) {
        if (page >= [100, 33, 64][block]!) continue;
        set.add(blockIndex(block), page);
        model.add(`${block} ${page}`);
      }
      for (let block = 0; block < 3; block += 1) {
        for (let page = 0; page < 100; page += 1) {
          expect(set.has(blockIndex(block), page)).toBe(model.has(`${block} ${page}`));
        }
      }
    }),
  );
});

test('pages of a block that is not there are not taken in', () => {
  const set = new PageSet([pages(32)]);
  set.add(blockIndex(0), 4000);
  set.add(blockIndex(7), 1);
  expect(set.has(blockIndex(0), 4000)).toBe(false);
  expect(set.has(blockIndex(7), 1)).toBe(false);
});
