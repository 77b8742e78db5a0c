import { answerAlong, neighbourhood, Prepaging } from '@vmferry/engine/postcopy/prepaging';
import { blockIndex, pages } from '@vmferry/engine/units';
import { expect, test } from 'vitest';

const around = (prepaging: Prepaging, page: number, block = 0): [number, number] => {
  const { first, count } = prepaging.around(blockIndex(block), page);
  return [first, count];
};

test('a fault is answered with its page first and a few behind it', () => {
  const fault = { block: blockIndex(1), first: pages(7), count: pages(1) };
  expect(answerAlong(fault)).toEqual({ block: 1, first: 7, count: 4 });
});

test('a fault on more pages than that is answered as it is', () => {
  const fault = { block: blockIndex(1), first: pages(512), count: pages(512) };
  expect(answerAlong(fault)).toEqual(fault);
});

test('a fault out of the blue brings its aligned neighbourhood', () => {
  const prepaging = new Prepaging();
  expect(around(prepaging, 1000)).toEqual([960, 64]);
  expect(around(prepaging, 50_000)).toEqual([49_984, 64]);
});

test('a walk through memory is met with more each time, up to a mebibyte', () => {
  const prepaging = new Prepaging();
  let at = 640;
  const counts: number[] = [];
  for (let faults = 0; faults < 6; faults += 1) {
    const [first, count] = around(prepaging, at);
    expect(first).toBe(at);
    counts.push(count);
    at = first + count;
  }
  expect(counts).toEqual([64, 128, 256, 256, 256, 256]);
});

test('a neighbourhood is what the link carries in 2 ms, from 8 to 64 pages', () => {
  expect([0, 1.25e9, 125e6, 62.5e6, 40e6, 6.25e6, 1000].map(neighbourhood)).toEqual([
    64, 64, 64, 32, 32, 8, 8,
  ]);
});

test('on a slow link a walk grows from less to less', () => {
  const prepaging = new Prepaging();
  const counts: number[] = [];
  for (let at = 1000, faults = 0; faults < 4; faults += 1) {
    const { first, count } = prepaging.around(blockIndex(0), at, 8);
    counts.push(count);
    at = first + count;
  }
  expect(counts).toEqual([8, 16, 32, 32]);
});

test('several walks are told apart, by block and by place', () => {
  const prepaging = new Prepaging();
  around(prepaging, 0);
  around(prepaging, 3200);
  around(prepaging, 0, 1);
  expect(around(prepaging, 3264)).toEqual([3264, 128]);
  expect(around(prepaging, 64)).toEqual([64, 128]);
  expect(around(prepaging, 65, 1)).toEqual([65, 128]);
  expect(around(prepaging, 3199)).toEqual([3136, 64]);
});
