import { setImmediate as nextTurn } from 'node:timers/promises';
import type { SourceProgress } from '@vmferry/engine/guest';
import { bytes, bytesPerSec, millis, round } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { LiveProgress } from '../src/live-progress.ts';

const MB = 1e6;

/** A guest of 100 MB; what the destination has taken, and what the hypervisor answers, is the test's to say. */
function rig() {
  const state = { contentBytes: 0, zeroPages: 0, held: 0 };
  let asked = 0;
  let answer: (found: Partial<SourceProgress>) => void = () => {};
  const progress = new LiveProgress(
    {
      guest: {
        progress: () => {
          asked += 1;
          return new Promise((resolve) => {
            answer = (found) =>
              resolve({
                round: round(2),
                remainingBytes: bytes(0),
                dirtyBytesPerSec: bytesPerSec(0),
                ...found,
              });
          });
        },
      },
      memoryBytes: 100 * MB,
      delivered: () => state,
      held: () => state.held,
    },
    millis(0),
  );
  return { state, progress, asked: () => asked, answer: (found: Partial<SourceProgress>) => answer(found) };
}

const policy = {
  round: 3,
  remainingBytes: 40 * MB,
  dirtyBytesPerSec: 5 * MB,
  bandwidthBytesPerSec: 50 * MB,
  expectedDowntimeMs: 80,
};

describe('how far a migration is', () => {
  it('is all of memory before anything was seen', () => {
    expect(rig().progress.sample.remainingBytes).toBe(100 * MB);
  });

  it('is what the policy sees as long as it looks', () => {
    const { progress, state, asked } = rig();
    progress.policySaw(policy);
    state.contentBytes = 10 * MB;
    progress.look('steered', millis(1000));
    expect(progress.sample).toEqual(policy);
    expect(asked()).toBe(0);
  });

  it('goes on when the policy has decided, with a hypervisor that does not answer', () => {
    const { progress, state, asked } = rig();
    state.contentBytes = 10 * MB;
    progress.look('steered', millis(1000));
    progress.policySaw(policy);
    state.contentBytes = 30 * MB;
    progress.look('decided', millis(2000));
    expect(progress.sample).toMatchObject({ remainingBytes: 20 * MB, bandwidthBytesPerSec: 20 * MB });
    progress.look('decided', millis(2200));
    expect(progress.sample.bandwidthBytesPerSec).toBe(0);
    expect(asked()).toBe(1);
  });

  it('is what the hypervisor says in post-copy, with what waits for the link', async () => {
    const { progress, state, answer } = rig();
    progress.look('postcopy', millis(200));
    state.contentBytes = 5 * MB;
    state.held = 2 * MB;
    answer({ remainingBytes: bytes(60 * MB) });
    await nextTurn();
    progress.look('postcopy', millis(400));
    expect(progress.sample).toMatchObject({ round: 2, remainingBytes: 62 * MB });
    state.contentBytes = 7 * MB;
    progress.look('postcopy', millis(600));
    expect(progress.sample.remainingBytes).toBe(60 * MB);
  });

  it('does not grow in post-copy, where a hypervisor does not know of pages that answered faults', async () => {
    const { progress, state, answer } = rig();
    progress.look('postcopy', millis(200));
    answer({ remainingBytes: bytes(60 * MB) });
    await nextTurn();
    state.contentBytes = 20 * MB;
    progress.look('postcopy', millis(400));
    expect(progress.sample.remainingBytes).toBe(40 * MB);
    answer({ remainingBytes: bytes(58 * MB) });
    await nextTurn();
    progress.look('postcopy', millis(600));
    expect(progress.sample.remainingBytes).toBe(40 * MB);
    answer({ remainingBytes: bytes(30 * MB) });
    await nextTurn();
    progress.look('postcopy', millis(800));
    expect(progress.sample.remainingBytes).toBe(30 * MB);
  });

  it('is not asked for while the destination takes nothing', () => {
    const { progress, asked } = rig();
    progress.look('decided', millis(2000));
    expect(asked()).toBe(0);
  });
});
