import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AwaitedPages } from '../../src/carriage/awaited-pages.ts';
import { blockIndex } from '../../src/units.ts';

const page = fc.nat(60);
const block = fc.nat(2);

describe('awaited pages', () => {
  it('are found in what arrives, once each, however many are awaited', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.record({ wait: fc.array(page, { maxLength: 40 }), block }),
            fc.record({ came: fc.uniqueArray(page, { maxLength: 40 }), block }),
          ),
          { maxLength: 12 },
        ),
        (steps) => {
          const awaited = new AwaitedPages<string>();
          const model = new Map<string, string>();
          for (const [index, step] of steps.entries()) {
            const at = blockIndex(step.block);
            if ('wait' in step) {
              for (const page of step.wait) {
                expect(awaited.has(at, page)).toBe(model.has(`${at}:${page}`));
                awaited.set(at, page, `${at}:${page} of ${index}`);
                model.set(`${at}:${page}`, `${at}:${page} of ${index}`);
              }
            } else {
              const keys = step.came.map((page) => `${at}:${page}`).filter((key) => model.has(key));
              const found = awaited.arrived(at, Uint32Array.from(step.came));
              expect([...found].sort()).toEqual(keys.map((key) => model.get(key)).sort());
              for (const key of keys) model.delete(key);
            }
            expect([...awaited.values()].sort()).toEqual([...model.values()].sort());
          }
        },
      ),
    );
  });
});
