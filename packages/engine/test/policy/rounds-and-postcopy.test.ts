import { type FinalRound, finalRound } from '@vmferry/engine/policy/final-round';
import { postcopyNow } from '@vmferry/engine/policy/hybrid';
import { expect, test } from 'vitest';

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
    postcopyPossible: true,
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
  expect(last({ dirtyBytesPerSec: 50 * MIB, postcopyPossible: false }).action).toBe('stop-at-end');
});

test('with one live round a pre-copy that was asked for stays one, and a hybrid becomes post-copy before the end', () => {
  expect(last({ strategy: 'precopy', dirtyBytesPerSec: 50 * MIB }).action).toBe('stop-at-end');
  expect(last({ strategy: 'hybrid' }).action).toBe('start-postcopy');
});

test('what is dirtied is never thought to be more than all memory', () => {
  expect(last({ dirtyBytesPerSec: 10_000 * MIB }).expectedDowntimeMs).toBe(5120);
});
