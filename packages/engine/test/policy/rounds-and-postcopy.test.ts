import { type FinalRound, finalRound } from '@vmferry/engine/policy/final-round';
import { postcopyNow } from '@vmferry/engine/policy/hybrid';
import { describe, expect, test } from 'vitest';

const MIB = 2 ** 20;

const hybrid = (rounds: number, remainingMiB: number, previousMiB?: number) =>
  postcopyNow({
    rounds,
    memoryBytes: 512 * MIB,
    remainingBytes: remainingMiB * MIB,
    previousBytes: previousMiB === undefined ? undefined : previousMiB * MIB,
    bandwidthBytesPerSec: 100 * MIB,
  });

test('hybrid goes on with rounds while each halves what is dirty', () => {
  expect(hybrid(1, 100)).toBeUndefined();
  expect(hybrid(2, 40, 100)).toBeUndefined();
});

test('hybrid starts post-copy when a round saves little, little is left, or rounds were many', () => {
  expect(hybrid(2, 80, 100)).toMatch(/would not save many faults/);
  expect(hybrid(1, 400)).toMatch(/would not save many faults/);
  expect(hybrid(1, 3)).toMatch(/little is left/);
  expect(hybrid(5, 20, 100)).toMatch(/5 rounds: rounds have done their part/);
});

const last = (change: Partial<FinalRound>) =>
  finalRound({
    strategy: 'undecided',
    memoryBytes: 512 * MIB,
    remainingBytes: 50 * MIB,
    elapsedMs: 2000,
    dirtyBytesPerSec: 10 * MIB,
    bandwidthBytesPerSec: 100 * MIB,
    maxDowntimeMs: 300,
    onStall: undefined,
    postcopyObstacle: undefined,
    ...change,
  });

test('with one live round nothing is decided before its end is near', () => {
  expect(last({ remainingBytes: 400 * MIB }).action).toBe('wait');
});

test('with one live round auto stops at its end when what it leaves dirty fits the downtime', () => {
  const decision = last({});
  expect(decision).toMatchObject({ action: 'stop-at-end', expectedDowntimeMs: 200 });
});

test('with one live round auto goes over to post-copy when it does not fit, if it can', () => {
  const decision = last({ dirtyBytesPerSec: 50 * MIB });
  expect(decision).toMatchObject({ action: 'start-postcopy', expectedDowntimeMs: 1000 });
  expect('why' in decision && decision.why).toMatch(/more than the 300 ms allowed/);
  expect(last({ dirtyBytesPerSec: 50 * MIB, postcopyObstacle: 'none' }).action).toBe('stop-at-end');
});

test('with one live round a pre-copy that was asked for stays one, and a hybrid becomes post-copy before the end', () => {
  expect(last({ strategy: 'precopy', dirtyBytesPerSec: 50 * MIB }).action).toBe('stop-at-end');
  expect(last({ strategy: 'hybrid' }).action).toBe('start-postcopy');
});

test('with one live round what the operator wants in a stall is done before its end', () => {
  const tooMuch = { strategy: 'precopy', dirtyBytesPerSec: 50 * MIB } as const;
  expect(last({ ...tooMuch, onStall: 'postcopy' }).action).toBe('start-postcopy');
  expect(last({ ...tooMuch, onStall: 'abort' }).action).toBe('abort');
  expect(last({ ...tooMuch, onStall: 'stop' }).action).toBe('stop-at-end');
  const impossible = last({ ...tooMuch, onStall: 'postcopy', postcopyObstacle: 'no userfaultfd' });
  expect(impossible).toMatchObject({ action: 'abort', why: expect.stringMatching(/no userfaultfd/) });
  expect(last({ ...tooMuch, onStall: 'abort', maxDowntimeMs: 2000 }).action).toBe('stop-at-end');
});

describe('with one live round, a dirty rate that was not measured', () => {
  const unknown = { dirtyBytesPerSec: undefined, remainingBytes: 30 * MIB };

  test('is waited for as long as there is time', () => {
    expect(last({ ...unknown, remainingBytes: 50 * MIB }).action).toBe('wait');
  });

  test('is not taken for nothing, and post-copy is the safe choice', () => {
    const decision = last(unknown);
    expect(decision).toMatchObject({ action: 'start-postcopy', why: expect.stringMatching(/not measured/) });
    expect('why' in decision && decision.why).not.toMatch(/ 0 B/);
    expect(decision.expectedDowntimeMs).toBeUndefined();
  });

  test('does not matter where all of memory would fit', () => {
    const decision = last({ ...unknown, memoryBytes: 64 * MIB, bandwidthBytesPerSec: 400 * MIB });
    expect(decision).toMatchObject({ action: 'stop-at-end', why: expect.stringMatching(/160 ms/) });
  });

  test('is told as such where nothing hangs on it', () => {
    const decision = last({ ...unknown, strategy: 'precopy', onStall: 'abort' });
    expect(decision).toMatchObject({ action: 'stop-at-end', why: expect.stringMatching(/not measured/) });
  });
});

test('what is dirtied is never thought to be more than all memory', () => {
  expect(last({ dirtyBytesPerSec: 10_000 * MIB }).expectedDowntimeMs).toBe(5120);
});
