import type { ControlMessage } from '@vmferry/wire/messages';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { EXAMINED_MS, LastFigures } from '../src/last-figures.ts';

const figures: ControlMessage<'complete'> = {
  type: 'complete',
  atMs: 1,
  faults: { count: 0, p50Ms: 0, p99Ms: 0, maxMs: 0 },
  announce: { frames: 3, interfaces: ['tap0'] },
  pagesApplied: 7,
};
const never = new Promise<void>(() => {});

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Gives what came of the wait so far: "waiting", or the figures, or undefined. */
function watched(last: LastFigures, closed: Promise<void> = never): { came: unknown } {
  const seen: { came: unknown } = { came: 'waiting' };
  void last.wait(closed).then((found) => {
    seen.came = found;
  });
  return seen;
}

test('figures are had whether they come before the wait or during it', async () => {
  const early = new LastFigures();
  early.arrived(figures);
  expect(await early.wait(never)).toBe(figures);
  const late = new LastFigures();
  const seen = watched(late);
  await vi.advanceTimersByTimeAsync(9999);
  late.arrived(figures);
  await vi.advanceTimersByTimeAsync(0);
  expect(seen.came).toBe(figures);
});

test('they are not waited for beyond their time, nor beyond the link', async () => {
  const slow = watched(new LastFigures(500));
  await vi.advanceTimersByTimeAsync(499);
  expect(slow.came).toBe('waiting');
  await vi.advanceTimersByTimeAsync(1);
  expect(slow.came).toBeUndefined();
  const cut = watched(new LastFigures(500), Promise.resolve());
  await vi.advanceTimersByTimeAsync(0);
  expect(cut.came).toBeUndefined();
});

test('a destination that examines the guest has far longer', async () => {
  const last = new LastFigures(500);
  last.expect(true);
  const seen = watched(last);
  await vi.advanceTimersByTimeAsync(EXAMINED_MS - 1);
  expect([last.examines, seen.came]).toEqual([true, 'waiting']);
  await vi.advanceTimersByTimeAsync(1);
  expect(seen.came).toBeUndefined();
});
