import type { SourceState } from '@vmferry/engine/switchover/source-state';
import { millis } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { type StallSight, StallWatch } from '../src/stall-watch.ts';

const LIMITS = { stalledMs: 30_000, examinedMs: 1_800_000, deadlineMs: undefined };

function state(phase: 'copying' | 'committed' | 'finishing', change: Partial<SourceState> = {}): SourceState {
  const base = {
    mode: 'postcopy' as const,
    limits: { readyMs: 150_000, runningMs: 30_000 },
    ended: false,
    since: millis(1000),
    told: null,
  };
  return {
    ...base,
    ...(phase === 'committed' ? { phase, overdue: null } : { phase }),
    ...change,
  } as SourceState;
}

const sight = (of: SourceState, change: Partial<StallSight> = {}): StallSight => ({
  state: of,
  taken: 1,
  begun: true,
  stopped: millis(1000),
  decided: true,
  elapsedMs: 0,
  examines: false,
  ...change,
});

/** What is said of a destination that took its last in the first second, as time goes on. */
function watched(limits: Partial<ConstructorParameters<typeof StallWatch>[0]> = {}) {
  const watch = new StallWatch({ ...LIMITS, ...limits }, millis(0));
  return (of: StallSight, ...times: number[]) => times.map((at) => watch.look(of, millis(at))?.code);
}

describe('a destination that takes nothing any more', () => {
  it.each(['committed', 'finishing'] as const)('in post-copy calls for an operator (%s)', (phase) => {
    expect(watched()(sight(state(phase)), 1000, 30_999, 31_000)).toEqual([undefined, undefined, 'E_STALLED']);
  });

  it('is told from one that is slow', () => {
    const watch = new StallWatch(LIMITS, millis(0));
    const at = (taken: number, now: number) => watch.look(sight(state('finishing'), { taken }), millis(now));
    expect([at(1, 1000), at(1, 30_000), at(2, 31_000), at(2, 60_000)]).toEqual(Array(4).fill(undefined));
    expect(at(2, 61_000)).toMatchObject({ code: 'E_STALLED', why: expect.stringMatching(/still missing/) });
  });

  it('has nobody waiting for it after the commit of a pre-copy, which it has all of', () => {
    expect(watched()(sight(state('committed', { mode: 'precopy' })), 1000, 500_000)).toEqual([
      undefined,
      undefined,
    ]);
  });

  it('has time for an examination when it has all, and none to say nothing', () => {
    const all = state('finishing', { ended: true });
    expect(watched()(sight(all), 1000, 31_000)).toEqual([undefined, 'E_STALLED']);
    const examines = sight(all, { examines: true });
    expect(watched()(examines, 1000, 31_000, 1_801_000)).toEqual([undefined, undefined, 'E_STALLED']);
  });

  it('loses a guest that stands still for it before the commit', () => {
    const copying = state('copying');
    expect(watched()(sight(copying), 1000, 150_999, 151_000)).toEqual([undefined, undefined, 'E_TIMEOUT']);
  });

  it('keeps nobody waiting for ever whose guest runs on, unless there is something to be done first', () => {
    const running = sight(state('copying'), { stopped: undefined });
    expect(watched()(running, 1000, 60_999, 61_000)).toEqual([undefined, undefined, 'E_STALLED']);
    expect(watched()({ ...running, begun: false }, 1000, 900_000)).toEqual([undefined, undefined]);
  });

  it('loses it sooner past the deadline, once there is nothing to be decided any more', () => {
    const look = () => watched({ deadlineMs: 2000 });
    const late = sight(state('copying'), { elapsedMs: 2000 });
    expect(look()(late, 1000, 5999, 6000)).toEqual([undefined, undefined, 'E_DEADLINE']);
    expect(look()({ ...late, stopped: undefined }, 1000, 6000)).toEqual([undefined, 'E_DEADLINE']);
    expect(look()({ ...late, decided: false }, 1000, 6000)).toEqual([undefined, undefined]);
    expect(look()({ ...late, elapsedMs: 1999 }, 1000, 6000)).toEqual([undefined, undefined]);
  });
});
