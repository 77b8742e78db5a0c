import { expect, test } from 'vitest';
import { packsInHaste } from '../../src/carriage/haste.ts';

const fast = 120e6;

test('packing is hasty while at most half of the window is on its way', () => {
  expect(packsInHaste({ bytesInFlight: 499, window: 1000, pathBytesPerSec: fast })).toBe(true);
  expect(packsInHaste({ bytesInFlight: 500, window: 1000, pathBytesPerSec: fast })).toBe(false);
});

test('packing is thorough for a slow link, however little is on its way', () => {
  expect(packsInHaste({ bytesInFlight: 0, window: 1000, pathBytesPerSec: 12e6 })).toBe(false);
});

test('a link that nothing is known of is taken for a fast one', () => {
  expect(packsInHaste({ bytesInFlight: 0, window: 1000, pathBytesPerSec: 0 })).toBe(true);
});
