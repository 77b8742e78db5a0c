import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ConvergenceDecision,
  decide,
  defaultOnStall,
  type Goals,
  type StallAction,
  startConvergence,
} from '../../src/policy/convergence.ts';
import { bytes, bytesPerSec, millis, round } from '../../src/units.ts';

const MiB = 1024 * 1024;

interface Guest {
  readonly memory: number;
  readonly workingSet: number;
  readonly dirtyPerSec: number;
  /** Guest bytes per second at a time. */
  readonly bandwidth: (ms: number) => number;
  /** A factor on what is dirty at the n-th round end. */
  readonly swing?: (round: number) => number;
}

interface Run {
  readonly last: ConvergenceDecision;
  readonly rounds: number;
  readonly remaining: readonly number[];
  readonly throttles: readonly number[];
  readonly decisions: readonly ConvergenceDecision[];
  readonly ms: number;
}

/** Pre-copy of a guest that writes at random within its working set, sampled five times a second. */
function run(guest: Guest, goals: Partial<Goals> = {}): Run {
  let state = startConvergence({ maxDowntimeMs: 300, onStall: 'abort', ...goals }, millis(0));
  const decisions: ConvergenceDecision[] = [];
  const remaining: number[] = [];
  const throttles: number[] = [];
  let left = guest.memory;
  let now = 0;
  let n = 1;
  let slow = 1;
  for (; n < 1000; n += 1) {
    const began = now;
    let lastSample = now;
    let unsent = left;
    while (unsent > 0) {
      const step = Math.min(20, (unsent * 1000) / guest.bandwidth(now) + 0.01);
      unsent -= (guest.bandwidth(now) * step) / 1000;
      now += step;
      if (now - lastSample < 200) continue;
      lastSample = now;
      const event = {
        type: 'progress',
        round: round(n),
        remainingBytes: bytes(Math.max(0, unsent)),
        dirtyBytesPerSec: bytesPerSec(guest.dirtyPerSec * slow),
        bandwidthBytesPerSec: bytesPerSec(guest.bandwidth(now)),
      } as const;
      const step2 = decide(state, event, millis(now));
      state = step2.state;
      decisions.push(step2.decision);
      if (step2.decision.action !== 'continue') {
        return { last: step2.decision, rounds: n, remaining, throttles, decisions, ms: now };
      }
    }
    now += 5;
    const took = (now - began) / 1000;
    const swing = guest.swing?.(n) ?? 1;
    left = swing * guest.workingSet * (1 - Math.exp((-guest.dirtyPerSec * slow * took) / guest.workingSet));
    remaining.push(left);
    const step = decide(
      state,
      {
        type: 'round-end',
        round: round(n),
        remainingBytes: bytes(left),
        dirtyBytesPerSec: bytesPerSec(left / took),
        bandwidthBytesPerSec: bytesPerSec(guest.bandwidth(now)),
      },
      millis(now),
    );
    state = step.state;
    decisions.push(step.decision);
    if (step.decision.action === 'throttle') {
      throttles.push(step.decision.percent);
      slow = 1 - step.decision.percent / 100;
    } else if (step.decision.action !== 'continue') {
      return { last: step.decision, rounds: n, remaining, throttles, decisions, ms: now };
    }
  }
  throw new Error('pre-copy never ended');
}

const gigabit = () => 115e6;
const ordinary: Guest = { memory: 280 * MiB, workingSet: 32 * MiB, dirtyPerSec: 18e6, bandwidth: gigabit };
const furious: Guest = { memory: 280 * MiB, workingSet: 200 * MiB, dirtyPerSec: 400e6, bandwidth: gigabit };

describe('convergence', () => {
  it('takes an ordinary guest through a few short rounds and switches near the minimum', () => {
    const result = run(ordinary);
    expect(result.last.action).toBe('switchover');
    expect(result.rounds).toBeGreaterThanOrEqual(2);
    expect(result.rounds).toBeLessThanOrEqual(4);
    expect(result.remaining.at(-1)).toBeLessThan(2 * MiB);
    expect(result.last.expectedDowntimeMs).toBeLessThan(60);
  });

  it('switches an idle guest after the first round, without waiting', () => {
    const result = run({ memory: 512 * MiB, workingSet: 100_000, dirtyPerSec: 20_000, bandwidth: gigabit });
    expect(result).toMatchObject({ rounds: 1, last: { action: 'switchover' } });
  });

  it('switches a guest that dirtied nothing even if no bandwidth was ever measured', () => {
    const state = startConvergence({ maxDowntimeMs: 300, onStall: 'abort' }, millis(0));
    const event = {
      type: 'round-end',
      round: round(1),
      remainingBytes: bytes(0),
      dirtyBytesPerSec: bytesPerSec(0),
    } as const;
    expect(decide(state, event, millis(5)).decision.action).toBe('switchover');
  });

  it('does not take a single rise for a stall', () => {
    const swing = (n: number) => (n === 3 ? 2.5 : 1);
    const result = run({ ...ordinary, dirtyPerSec: 80e6, workingSet: 120 * MiB, swing });
    expect(result.last.action).toBe('switchover');
    expect(result.last.expectedDowntimeMs).toBeLessThanOrEqual(300);
  });

  it('switches an oscillating guest at a local minimum', () => {
    const swing = (n: number) => [1, 0.35, 0.8, 0.3][n % 4]!;
    const result = run(
      { memory: 280 * MiB, workingSet: 60 * MiB, dirtyPerSec: 300e6, bandwidth: gigabit, swing },
      { maxDowntimeMs: 250 },
    );
    expect(result.last.action).toBe('switchover');
    expect(result.remaining.at(-1)).toBeLessThanOrEqual(Math.min(...result.remaining) * 1.25);
  });

  it('starts post-copy when a stall shows and the operator wants that', () => {
    const result = run(furious, { onStall: 'postcopy' });
    expect(result.last.action).toBe('start-postcopy');
    expect(result.rounds).toBeLessThanOrEqual(6);
    expect(result.last.why).toMatch(/has not fallen/);
  });

  it('stops a stalled guest beyond the limit only when the operator allows it, and says so', () => {
    const result = run(furious, { onStall: 'stop' });
    expect(result.last).toMatchObject({ action: 'switchover' });
    expect(result.last.expectedDowntimeMs).toBeGreaterThan(300);
    expect(result.last.why).toMatch(/operator allows a longer downtime/);
  });

  it('aborts a stalled guest when the operator wants no other means', () => {
    expect(run(furious, { onStall: 'abort' }).last.action).toBe('abort');
  });

  it('throttles in steps until the guest converges', () => {
    const result = run(furious, { onStall: 'throttle' });
    expect(result.throttles.slice(0, 3)).toEqual([20, 30, 40]);
    expect(result.last.action).toBe('switchover');
    expect(result.last.expectedDowntimeMs).toBeLessThanOrEqual(300);
  });

  it('gives each step of the throttle the time that QEMU takes for it, however short the rounds', () => {
    const hasty = { ...furious, memory: 16 * MiB, workingSet: 8 * MiB, dirtyPerSec: 400e9 };
    const result = run(hasty, { onStall: 'throttle', maxDowntimeMs: 20 });
    expect(result.last.action).toBe('abort');
    expect(result.throttles).toEqual([20, 30, 40, 50, 60, 70, 80, 90, 99]);
    expect(result.rounds).toBeGreaterThan(200);
    expect(result.ms).toBeGreaterThan(9 * 2500);
  });

  it('aborts when the last step of the throttle does not help either', () => {
    const stubborn = { ...furious, dirtyPerSec: 400e9 };
    const result = run(stubborn, { onStall: 'throttle' });
    expect(result.throttles).toEqual([20, 30, 40, 50, 60, 70, 80, 90, 99]);
    expect(result.last.action).toBe('abort');
    expect(result.last.why).toMatch(/99 %/);
  });

  it('claims no step of a throttle that it does not set, and gives the hypervisor the same time for its own', () => {
    const stubborn = { ...furious, dirtyPerSec: 400e9 };
    const own = run(stubborn, { onStall: 'throttle', throttlesItself: true });
    expect(own.throttles).toEqual([]);
    expect(own.decisions.map(({ why }) => why).join()).not.toMatch(/slowed|\d %/);
    expect(own.decisions.map(({ why }) => why).join()).toContain('by as much as it chooses');
    expect(own.last).toMatchObject({
      action: 'abort',
      why: expect.stringContaining('the hypervisor was given time'),
    });
    expect(own.rounds).toBe(run(stubborn, { onStall: 'throttle' }).rounds);
  });

  it('switches at the deadline when the guest fits, and takes the means for a stall when not', () => {
    expect(run(furious, { onStall: 'postcopy', deadlineMs: 3000 })).toMatchObject({
      last: { action: 'start-postcopy', why: expect.stringMatching(/deadline/) },
    });
    expect(run(furious, { onStall: 'throttle', deadlineMs: 3000 }).last.action).toBe('abort');
    expect(run(furious, { onStall: 'stop', deadlineMs: 3000 }).last.action).toBe('switchover');
    expect(run(ordinary, { deadlineMs: 2950 }).last.action).toBe('switchover');
  });

  it('does not begin a round that would cross the deadline when the guest fits already', () => {
    const result = run({ ...ordinary, workingSet: 28 * MiB }, { deadlineMs: 2700 });
    expect(result.last).toMatchObject({ action: 'switchover' });
    expect(result.ms).toBeLessThan(2700);
  });

  it('sees a bandwidth drop before it promises a downtime', () => {
    const bandwidth = (ms: number) => (ms < 2000 ? 115e6 : 20e6);
    const result = run({ ...ordinary, bandwidth, dirtyPerSec: 40e6 }, { onStall: 'postcopy' });
    expect(result.last.action).toBe('start-postcopy');
  });

  it('converges on a noisy link', () => {
    const bandwidth = (ms: number) => 80e6 + 40e6 * Math.sin(ms / 37) + 20e6 * Math.sin(ms / 311);
    const result = run({ ...ordinary, bandwidth });
    expect(result.last.action).toBe('switchover');
    expect(result.remaining.at(-1)).toBeLessThan(4 * MiB);
  });

  it('repeats its decision for whatever comes after it', () => {
    let state = startConvergence({ maxDowntimeMs: 300, onStall: 'abort' }, millis(0));
    const event = {
      type: 'round-end',
      round: round(1),
      remainingBytes: bytes(0),
      dirtyBytesPerSec: bytesPerSec(0),
      bandwidthBytesPerSec: bytesPerSec(1e8),
    } as const;
    const first = decide(state, event, millis(10));
    state = first.state;
    expect(decide(state, { ...event, remainingBytes: bytes(1e9) }, millis(20)).decision).toBe(first.decision);
  });

  it('has post-copy as its means for a stall where that is possible, and the throttle elsewhere', () => {
    expect(defaultOnStall('auto', true)).toBe('postcopy');
    expect(defaultOnStall('hybrid', true)).toBe('postcopy');
    expect(defaultOnStall('auto', false)).toBe('throttle');
    expect(defaultOnStall('precopy', true)).toBe('throttle');
  });

  it('always ends, never promises more than it may and always says why', () => {
    const means = fc.constantFrom<StallAction>('postcopy', 'throttle', 'stop', 'abort');
    fc.assert(
      fc.property(
        fc.record({
          memory: fc.integer({ min: 1, max: 64 * 1024 }),
          workingSet: fc.integer({ min: 1, max: 1024 }),
          dirtyPerSec: fc.integer({ min: 0, max: 2000 }),
          bandwidth: fc.integer({ min: 50, max: 2000 }),
          swings: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 7 }),
          wobble: fc.double({ min: 0, max: 0.9, noNaN: true }),
          maxDowntimeMs: fc.integer({ min: 1, max: 2000 }),
          deadlineMs: fc.option(fc.integer({ min: 100, max: 100_000 }), { nil: undefined }),
          onStall: means,
        }),
        (c) => {
          const result = run(
            {
              memory: c.memory * MiB,
              workingSet: c.workingSet * MiB,
              dirtyPerSec: c.dirtyPerSec * MiB,
              bandwidth: (ms) => c.bandwidth * MiB * (1 + c.wobble * Math.sin(ms / 500)),
              swing: (n) => c.swings[n % c.swings.length]!,
            },
            { maxDowntimeMs: c.maxDowntimeMs, deadlineMs: c.deadlineMs, onStall: c.onStall },
          );
          // Steps of the throttle have rounds of their own, to show in.
          expect(result.rounds).toBeLessThanOrEqual(c.onStall === 'throttle' ? 160 + 360 : 160);
          for (const decision of result.decisions) {
            expect(decision.why).not.toBe('');
            if (decision.action === 'switchover' && c.onStall !== 'stop') {
              expect(decision.expectedDowntimeMs).toBeLessThanOrEqual(c.maxDowntimeMs);
            }
            if (decision.action === 'start-postcopy') expect(c.onStall).toBe('postcopy');
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
