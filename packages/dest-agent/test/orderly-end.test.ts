import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type EndingSession, type Standing, windUp } from '../src/orderly-end.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

function rig(standing: Standing, { told = false, announced = Promise.resolve() } = {}) {
  const session = {
    announced,
    standing,
    told,
    receivedBytes: 0,
    givenUp: 0,
    giveUp: () => {
      session.givenUp += 1;
      session.standing = 'ending';
    },
  };
  let over = false;
  void windUp(session satisfies EndingSession).then(() => {
    over = true;
  });
  const after = async (ms: number): Promise<boolean> => {
    await vi.advanceTimersByTimeAsync(ms);
    return over;
  };
  return { session, after };
}

test('what was promised to nobody is given up, and its end is waited for', async () => {
  const { session, after } = rig('loose');
  expect(session.givenUp).toBe(1);
  expect(await after(60_000)).toBe(false);
  session.standing = 'over';
  expect(await after(200)).toBe(true);
});

test('the announcements of a guest that has come are sent to their end', async () => {
  let ended = (): void => {};
  const announced = new Promise<void>((resolve) => {
    ended = resolve;
  });
  const { after } = rig('over', { announced });
  expect(await after(1500)).toBe(false);
  ended();
  expect(await after(0)).toBe(true);
});

test('an end that does not come is not waited for', async () => {
  const { after } = rig('loose');
  expect(await after(179_000)).toBe(false);
  expect(await after(2000)).toBe(true);
});

test('a guest that was promised is waited for as long as something comes of it', async () => {
  const { session, after } = rig('promised');
  for (let times = 0; times < 10; times += 1) {
    expect(await after(20_000)).toBe(false);
    session.receivedBytes += 4096;
  }
  expect(await after(29_000)).toBe(false);
  expect(await after(2000)).toBe(true);
  expect(session.givenUp).toBe(0);
});

test('once the operator was called, only what comes at once is waited for', async () => {
  const { session, after } = rig('promised', { told: true });
  expect(await after(900)).toBe(false);
  session.receivedBytes += 4096;
  expect(await after(900)).toBe(false);
  expect(await after(500)).toBe(true);
});
