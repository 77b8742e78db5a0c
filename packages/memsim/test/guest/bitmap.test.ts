import {
  clearRange,
  countBits,
  countShared,
  hasShared,
  PagesToSend,
  setShared,
} from '@vmferry/memsim/guest/bitmap';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

test('bits are counted', () => {
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), (word) => {
      expect(countBits(word)).toBe(word.toString(2).replaceAll('0', '').length);
    }),
  );
});

test('a range is cleared, and nothing beside it', () => {
  fc.assert(
    fc.property(fc.nat(200), fc.nat(200), (first, length) => {
      const count = Math.min(length, 256 - first);
      const bits = new Uint32Array(8).fill(0xffff_ffff);
      clearRange(bits, first, count);
      for (let page = 0; page < 256; page += 1) {
        expect(hasShared(bits, page)).toBe(page < first || page >= first + count);
      }
    }),
  );
});

type Command =
  | readonly ['log', number]
  | readonly ['harvest']
  | readonly ['take', number]
  | readonly ['next'];

test('pages to send are the set of those logged and not yet taken, the first of them first', () => {
  const PAGES = 100;
  const page = fc.nat(PAGES - 1);
  const command: fc.Arbitrary<Command> = fc.oneof(
    fc.tuple(fc.constant('log' as const), page),
    fc.tuple(fc.constant('harvest' as const)),
    fc.tuple(fc.constant('take' as const), fc.nat(PAGES + 40)),
    fc.tuple(fc.constant('next' as const)),
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 200 }), fc.boolean(), (commands, full) => {
      const log = new Uint32Array(new SharedArrayBuffer(16));
      const toSend = new PagesToSend(PAGES);
      const logged = new Set<number>();
      const model = new Set<number>();
      if (full) {
        toSend.addAll();
        for (let n = 0; n < PAGES; n += 1) model.add(n);
      }
      for (const [what, n] of commands) {
        if (what === 'log') {
          setShared(log, n);
          logged.add(n);
          expect(hasShared(log, n)).toBe(true);
        } else if (what === 'harvest') {
          toSend.takeFrom(log);
          for (const each of logged) model.add(each);
          logged.clear();
          expect([...log]).toEqual([0, 0, 0, 0]);
        } else if (what === 'take') {
          expect(toSend.take(n)).toBe(model.delete(n));
        } else {
          const first = model.size === 0 ? undefined : Math.min(...model);
          expect(toSend.next()).toBe(first);
          if (first !== undefined) model.delete(first);
        }
        expect(toSend.size).toBe(model.size);
        expect(countShared(log)).toBe(logged.size);
        expect(toSend.sizeWith(log)).toBe(new Set([...model, ...logged]).size);
      }
    }),
  );
});
