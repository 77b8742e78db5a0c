import type { PageBatch } from '@vmferry/engine/guest';
import { Backlog } from '@vmferry/engine/postcopy/backlog';
import { blockIndex, bytes, pages, round } from '@vmferry/engine/units';
import fc from 'fast-check';
import { expect, test } from 'vitest';

function batch(first: number, count: number, block = 0): PageBatch & { released: number } {
  const made = {
    type: 'pages' as const,
    block: blockIndex(block),
    round: round(1),
    lane: 'bulk' as const,
    pages: Uint32Array.from({ length: count }, (_, i) => first + i),
    kinds: new Uint8Array(count),
    content: new Uint8Array(count * 4096),
    headroomBytes: bytes(0),
    released: 0,
    release() {
      made.released += 1;
    },
  };
  return made;
}

const numbers = (one: PageBatch): number[] => [...one.pages];

const range = (first: number, block = 0) => ({
  block: blockIndex(block),
  first: pages(first),
  count: pages(1),
});

test('without a fault the batch that has waited longest goes first', () => {
  const backlog = new Backlog();
  const [a, b] = [batch(900, 4), batch(0, 4)];
  backlog.add(a);
  backlog.add(b);
  expect(backlog.bytes).toBe(8 * 4096);
  expect([backlog.next(), backlog.next(), backlog.next()]).toEqual([a, b, undefined]);
  expect(backlog.bytes).toBe(0);
});

test('a fault on a page that waits takes out this page, and what lies beside it stays in its place', () => {
  const backlog = new Backlog();
  const [a, b] = [batch(0, 64), batch(64, 64)];
  backlog.add(a);
  backlog.add(b);
  expect(backlog.fault(range(70)).map(numbers)).toEqual([[70]]);
  expect(backlog.fault(range(70))).toEqual([]);
  expect(backlog.fault(range(3, 1))).toEqual([]);
  expect(backlog.bytes).toBe(127 * 4096);
  expect(b.released).toBe(0);
});

test('a range is taken out of every batch that holds a part of it', () => {
  const backlog = new Backlog();
  for (const each of [batch(0, 8), batch(8, 8), batch(16, 8), batch(8, 8, 1)]) backlog.add(each);
  const taken = backlog.take({ block: blockIndex(0), first: pages(6), count: pages(12) });
  expect(taken.flatMap(numbers)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
  const left: number[][] = [];
  for (let next = backlog.next(); next; next = backlog.next()) left.push(numbers(next));
  expect(left.flat().sort((x, y) => x - y)).toEqual([
    0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 21, 22, 23,
  ]);
});

test('what lies right behind the last fault goes before what lies behind an older one, before it, or elsewhere', () => {
  const backlog = new Backlog();
  const far = batch(100_000, 8);
  const otherBlock = batch(5_001, 8, 1);
  const before = batch(4_900, 8);
  const behind = batch(5_001, 8);
  const older = batch(20_001, 8);
  for (const each of [far, otherBlock, before, older, behind]) backlog.add(each);
  backlog.fault(range(20_000));
  backlog.fault(range(5_000));
  expect(backlog.next()).toBe(behind);
  expect(backlog.next()).toBe(older);
  expect(backlog.next()).toBe(before);
  expect(backlog.next()).toBe(far);
  expect(backlog.next()).toBe(otherBlock);
});

test('every page comes out once, whatever is asked in between, and a drop gives back the rest', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 1, max: 99 }), fc.boolean()), {
        maxLength: 40,
      }),
      (steps) => {
        const backlog = new Backlog();
        const added: ReturnType<typeof batch>[] = [];
        const out: PageBatch[] = [];
        steps.forEach(([at, count, fault], index) => {
          const one = batch(index * 64, 64);
          added.push(one);
          backlog.add(one);
          if (fault) {
            out.push(...backlog.fault({ block: blockIndex(0), first: pages(at), count: pages(count) }));
          } else if (at % 3 === 0) {
            const next = backlog.next();
            if (next) out.push(next);
          }
        });
        const seen = out.flatMap(numbers);
        expect(new Set(seen).size).toBe(seen.length);
        expect(backlog.bytes).toBe((added.length * 64 - seen.length) * 4096);
        backlog.drop();
        expect(backlog.empty).toBe(true);
        for (const one of out) one.release();
        for (const one of added) expect(one.released).toBe(1);
      },
    ),
  );
});
