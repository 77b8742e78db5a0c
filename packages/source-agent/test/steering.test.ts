import { setImmediate as nextTurn } from 'node:timers/promises';
import type { SourceGuest } from '@vmferry/engine/guest';
import { migrateRequestSchema } from '@vmferry/engine/options';
import { bytes, bytesPerSec, round } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { Steering, type SteeringOptions } from '../src/steering.ts';

const GiB = 1024 ** 3;
const HEAD_START_PAGES = GiB / 4 / 4096;

/** A guest of 1 GiB that is to move by post-copy, whose destination takes what it is sent when it is told to. */
function rig(strategy: 'postcopy' | 'precopy', headStartMs?: number, parts: Partial<SteeringOptions> = {}) {
  const done: string[] = [];
  const failures: unknown[] = [];
  let land: () => void = () => {};
  const landed = new Promise<void>((resolve) => {
    land = resolve;
  });
  const state = { answer: Promise.resolve() };
  const guest = {
    startPostcopy: () => {
      done.push('post-copy');
      return state.answer;
    },
    switchover: async () => void done.push('stop'),
    measureDirtyRate: () => Promise.reject(new Error('QEMU does not answer')),
    progress: () =>
      Promise.resolve({ round: round(1), remainingBytes: bytes(GiB), dirtyBytesPerSec: bytesPerSec(0) }),
  } as unknown as SourceGuest;
  const steering = new Steering({
    guest,
    request: migrateRequestSchema.parse({
      guest: 'sim:one',
      to: 'ws://127.0.0.1:1',
      strategy,
      ...(headStartMs === undefined ? {} : { headStartMs }),
    }),
    memoryBytes: GiB,
    oneLiveRound: true,
    postcopyObstacle: undefined,
    delivered: () => ({ contentBytes: 0, zeroPages: 0 }),
    held: () => 0,
    landed: () => landed,
    emit: () => {},
    progress: () => {},
    onSwitchover: () => {},
    onStrategy: () => {},
    onAbort: () => {},
    onFailure: (error) => failures.push(error),
    ...parts,
  });
  const read = async (pages: number): Promise<void> => {
    await steering.mayGoOn(pages);
    done.push('read on');
  };
  return { steering, done, failures, state, land, read };
}

describe('a stall of a guest that is to be throttled', () => {
  /** What is told and asked for over rounds that get no smaller. */
  const stalled = async (guest: Partial<SourceGuest>) => {
    const told: string[] = [];
    const steering = new Steering({
      guest: guest as SourceGuest,
      request: migrateRequestSchema.parse({
        guest: 'sim:one',
        to: 'ws://127.0.0.1:1',
        strategy: 'precopy',
        onStall: 'throttle',
      }),
      memoryBytes: GiB,
      oneLiveRound: false,
      postcopyObstacle: 'pre-copy was asked for',
      delivered: () => ({ contentBytes: 0, zeroPages: 0 }),
      held: () => 0,
      landed: () => Promise.resolve(),
      emit: (event) => {
        if (event.type === 'decision') told.push(event.what);
      },
      progress: () => {},
      onSwitchover: () => {},
      onStrategy: () => {},
      onAbort: () => {},
      onFailure: (error) => told.push(String(error)),
    });
    for (let n = 1; n <= 5; n += 1) {
      steering.onRoundEnd({
        type: 'round-end',
        round: round(n),
        remainingBytes: bytes(GiB),
        dirtyBytesPerSec: bytesPerSec(GiB),
      });
    }
    steering.stop();
    await nextTurn();
    return told;
  };

  it('is told with the step that its hypervisor is asked for', async () => {
    const asked: number[] = [];
    const setThrottle = async (percent: number): Promise<void> => void asked.push(percent);
    expect(await stalled({ setThrottle })).toContain('throttle the guest by 20 %');
    expect(asked).toEqual([20]);
  });

  it('is told as another round where nobody can ask its hypervisor', async () => {
    expect(new Set(await stalled({}))).toEqual(new Set(['another round']));
  });
});

describe('the stop of a guest in pre-copy', () => {
  /** A guest of which this much a second is written, beside a link that carries 100 MB. */
  const stops = async (dirtyBytesPerSec: number) => {
    const { steering, done, land, read } = rig('precopy', undefined, {
      oneLiveRound: false,
      delivered: () => ({ contentBytes: (performance.now() - began) * 1e5, zeroPages: 0 }),
    });
    const began = performance.now();
    await expect.poll(() => performance.now() - began).toBeGreaterThan(100);
    steering.onRoundEnd({
      type: 'round-end',
      round: round(1),
      // Not worth another round.
      remainingBytes: bytes(1000),
      dirtyBytesPerSec: bytesPerSec(dirtyBytesPerSec),
    });
    const reading = read(0);
    await nextTurn();
    return { done, land, steering, reading };
  };

  it('waits, with nothing more read, until what is on its way has arrived', async () => {
    const { done, land, steering, reading } = await stops(1e6);
    expect(done).toEqual([]);
    land();
    await reading;
    expect(done).toEqual(['stop', 'read on']);
    steering.stop();
  });

  it('comes at once where the guest would write as much meanwhile', async () => {
    const { done, steering, reading } = await stops(1e9);
    await reading;
    expect(done).toEqual(['stop', 'read on']);
    steering.stop();
  });

  it('never comes where all was given up meanwhile', async () => {
    const { done, land, steering, reading } = await stops(1e6);
    steering.stop();
    land();
    await reading;
    await nextTurn();
    expect(done).toEqual(['read on']);
  });
});

describe('the start of a post-copy', () => {
  it('comes before anything is read where nothing is to go ahead', async () => {
    const { steering, done, land } = rig('postcopy', 0);
    land();
    await steering.opened();
    expect(done).toEqual(['post-copy']);
    steering.stop();
  });

  it('waits, with nothing more read, until what went ahead has arrived', async () => {
    const { steering, done, read, land } = rig('postcopy');
    await steering.opened();
    steering.begin();
    await read(HEAD_START_PAGES - 1);
    expect(done).toEqual(['read on']);
    const reading = read(1);
    await nextTurn();
    expect(done).toEqual(['read on']);
    land();
    await reading;
    expect(done).toEqual(['read on', 'post-copy', 'read on']);
    steering.stop();
  });

  it('does not wait for long on a link that brings nothing', async () => {
    const { steering, done, read } = rig('postcopy');
    steering.begin();
    await read(HEAD_START_PAGES);
    expect(done).toEqual(['post-copy', 'read on']);
    steering.stop();
  });

  it('comes by itself when the time for it is over', async () => {
    const { steering, done, land } = rig('postcopy', 30);
    land();
    steering.begin();
    await expect.poll(() => done).toEqual(['post-copy']);
    steering.stop();
  });

  it('does not wait for the answer of a hypervisor that has to be read before it gives one', async () => {
    const { steering, done, read, state, land } = rig('postcopy');
    state.answer = new Promise(() => {});
    land();
    steering.begin();
    await read(HEAD_START_PAGES);
    expect(done).toEqual(['post-copy', 'read on']);
    steering.stop();
  });

  it('has been heard by the hypervisor before more is read', async () => {
    const { steering, done, read, state, land } = rig('postcopy');
    let answer: () => void = () => {};
    state.answer = new Promise((resolve) => {
      answer = resolve;
    });
    land();
    steering.begin();
    const reading = read(HEAD_START_PAGES);
    while (done.length === 0) await nextTurn();
    await nextTurn();
    expect(done).toEqual(['post-copy']);
    answer();
    await reading;
    expect(done).toEqual(['post-copy', 'read on']);
    steering.stop();
  });

  it('is told when it fails, and holds nobody up', async () => {
    const { steering, done, failures, read, state, land } = rig('postcopy');
    const tooLate = new Error('too late');
    state.answer = Promise.reject(tooLate);
    land();
    steering.begin();
    await read(HEAD_START_PAGES);
    expect(done).toEqual(['post-copy', 'read on']);
    expect(failures).toEqual([tooLate]);
    steering.stop();
  });

  it('lets go whoever waits when all is given up', async () => {
    const { steering, done, read } = rig('postcopy');
    steering.begin();
    const reading = read(HEAD_START_PAGES);
    await nextTurn();
    steering.stop();
    await reading;
    expect(done).toEqual(['read on']);
  });

  it('never comes where pre-copy was asked for', async () => {
    const { steering, done, failures, read } = rig('precopy');
    await steering.opened();
    steering.begin();
    await read(GiB / 4096);
    expect(done).toEqual(['read on']);
    // That the dirty rate could not be measured is nothing to give up for.
    expect(failures).toEqual([]);
    steering.stop();
  });
});
