import { Prepaging } from '@vmferry/engine/postcopy/prepaging';
import { blockIndex } from '@vmferry/engine/units';
import { expect, test } from 'vitest';

const around = (prepaging: Prepaging, page: number, block = 0): [number, number] => {
  const { first, count } = prepaging.around(blockIndex(block), page);
  return [first, count];
};

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
