import { PageSet } from '@vmferry/engine/postcopy/page-set';
import { blockIndex, pages } from '@vmferry/engine/units';
import fc from 'fast-check';
import { expect, test } from 'vitest';

test('a page set holds what a set of pairs would hold', () => {
  const step = fc.tuple(fc.constantFrom('add', 'delete'), fc.nat(2), fc.nat(99));
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const set = new PageSet([pages(100), pages(33), pages(64)]);
      const model = new Set<string>();
      for (const [what, block, page] of steps) {
        const fits = page < [100, 33, 64][block]!;
        if (!fits) continue;
        if (what === 'add') {
          set.add(blockIndex(block), page);
          model.add(`${block} ${page}`);
        } else {
          set.delete(blockIndex(block), page);
          model.delete(`${block} ${page}`);
        }
      }
      expect(set.size).toBe(model.size);
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
  set.delete(blockIndex(7), 1);
  expect(set.size).toBe(0);
  expect(set.has(blockIndex(7), 1)).toBe(false);
});
