import type { SourceProgress } from '@vmferry/engine/guest';
import type { Failure } from '@vmferry/engine/switchover/protocol';
import { bytes, bytesPerSec, round } from '@vmferry/engine/units';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { SetUpWatch } from '../src/set-up-watch.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const copied = (amount: number): SourceProgress => ({
  round: round(0),
  remainingBytes: bytes(0),
  dirtyBytesPerSec: bytesPerSec(0),
  disks: { copiedBytes: bytes(amount), totalBytes: bytes(1000) },
});

function watching(progress: () => Promise<SourceProgress>, deadlineMs?: number, copies = true) {
  const failures: Failure[] = [];
  let seen = 0;
  const watch = new SetUpWatch({
    guest: { progress },
    limits: { copies, stalledMs: 2000, deadlineMs, onStall: undefined },
    elapsedMs: () => performance.now(),
    onSeen: () => {
      seen += 1;
    },
    tell: () => {},
    onFailure: (failure) => failures.push(failure),
  });
  return { watch, failures, seen: () => seen };
}

test('what is copied is seen, and told when it goes no further', async () => {
  let amount = 0;
  const { watch, failures, seen } = watching(() => Promise.resolve(copied(amount)));
  for (let look = 0; look < 20; look += 1) {
    amount += 10;
    await vi.advanceTimersByTimeAsync(500);
  }
  expect([seen(), watch.copied?.copiedBytes, failures]).toEqual([20, 200, []]);
  await vi.advanceTimersByTimeAsync(2500);
  expect(failures[0]).toMatchObject({ code: 'E_STALLED' });
  watch.stop();
});

test('a hypervisor that answers nothing any more is judged all the same', async () => {
  let asked = 0;
  const { watch, failures } = watching(() => {
    asked += 1;
    return asked === 1 ? Promise.resolve(copied(10)) : new Promise(() => {});
  });
  await vi.advanceTimersByTimeAsync(2500);
  expect(failures).toEqual([]);
  await vi.advanceTimersByTimeAsync(500);
  expect(failures[0]?.why).toMatch(/has not answered for 2 s/);
  expect(asked).toBe(2);
  watch.stop();
});

test('a deadline holds before anything of a disk is heard of', async () => {
  const { disks: _, ...nothing } = copied(0);
  const { watch, failures } = watching(() => Promise.resolve(nothing), performance.now() + 1000);
  await vi.advanceTimersByTimeAsync(1500);
  expect(failures[0]).toMatchObject({ code: 'E_DEADLINE' });
  watch.stop();
});

test('when the memory has begun nothing is judged any more, and still seen', async () => {
  const { watch, failures, seen } = watching(() => Promise.resolve(copied(10)), performance.now() + 1000);
  watch.memoryBegins();
  await vi.advanceTimersByTimeAsync(60_000);
  expect([seen(), failures]).toEqual([120, []]);
  watch.stop();
});

test.each([
  ['of which nobody says anything', () => new Promise<SourceProgress>(() => {})],
  ['of which nothing can be known', () => Promise.reject(new Error('no job'))],
])('a set-up without disks %s is given up after minutes', async (_, progress) => {
  const { watch, failures } = watching(progress, undefined, false);
  await vi.advanceTimersByTimeAsync(300_000);
  expect(failures).toEqual([]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(failures[0]).toMatchObject({ code: 'E_STALLED', why: expect.stringMatching(/has not begun/) });
  watch.stop();
});

test('without disks nobody is asked any more when the memory has begun', async () => {
  const progress = vi.fn(() => Promise.reject(new Error('no job')));
  const { watch } = watching(progress, undefined, false);
  await vi.advanceTimersByTimeAsync(1000);
  watch.memoryBegins();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(progress).toHaveBeenCalledTimes(2);
});
