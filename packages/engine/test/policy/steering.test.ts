import { describe, expect, it } from 'vitest';
import { type SteeringAction, type SteeringFacts, SteeringPolicy } from '../../src/policy/steering.ts';
import { bytes, bytesPerSec, millis, round } from '../../src/units.ts';

const GiB = 1024 ** 3;
const facts: SteeringFacts = {
  request: { strategy: 'auto', maxDowntimeMs: 300 },
  memoryBytes: GiB,
  oneLiveRound: false,
  postcopyObstacle: undefined,
};
const seen = (number: number, remaining: number, dirty: number) => ({
  round: round(number),
  remainingBytes: bytes(remaining),
  dirtyBytesPerSec: bytesPerSec(dirty),
});
const delivered = (contentBytes: number, zeroPages = 0) => ({ contentBytes, zeroPages });
const types = (actions: readonly SteeringAction[]) => actions.map(({ type }) => type);

describe('the policy over a whole migration', () => {
  it.each([
    ['no head start is wanted', { headStartMs: 0 }, GiB],
    ['the guest is small', {}, GiB / 8],
  ])('starts post-copy at once where post-copy was asked for and %s', (_, request, memoryBytes) => {
    const policy = new SteeringPolicy(
      { ...facts, memoryBytes, request: { strategy: 'postcopy', maxDowntimeMs: 300, ...request } },
      millis(0),
    );
    expect(policy.headStart).toBeUndefined();
    expect(types(policy.begin(millis(5)))).toEqual(['tell', 'reason', 'start-postcopy']);
    expect(policy.over).toBe(true);
  });

  describe('asked for post-copy of a guest that is not small', () => {
    const begun = (headStartMs?: number, oneLiveRound = false) => {
      const request = { strategy: 'postcopy', maxDowntimeMs: 300, headStartMs } as const;
      const policy = new SteeringPolicy({ ...facts, oneLiveRound, request }, millis(0));
      expect(policy.begin(millis(1000))).toEqual([]);
      return policy;
    };
    const start = ['tell', 'reason', 'start-postcopy'];

    it.each([
      [undefined, 1000],
      [1500, 1500],
    ])('lets memory go ahead for a while (%s)', (asked, ms) => {
      const policy = begun(asked);
      expect(policy.sample(seen(1, GiB, 0), delivered(0), millis(1000 + ms - 1))).toEqual([]);
      expect(types(policy.sample(seen(1, GiB, 0), delivered(0), millis(1000 + ms)))).toEqual(start);
      expect(policy.over).toBe(true);
      expect(policy.headStartOver()).toEqual([]);
    });

    it('lets a quarter of it go ahead and no more', () => {
      expect(types(begun().sample(seen(1, GiB * 0.76, 0), delivered(0), millis(1010)))).toEqual([]);
      expect(types(begun().sample(seen(1, GiB * 0.75, 0), delivered(0), millis(1010)))).toEqual(start);
      expect(begun().headStart).toEqual({ ms: 1000, pages: GiB / 4 / 4096 });
      expect(types(begun().headStartOver())).toEqual(start);
    });

    it.each([true, false])('does not begin another round (one can be relied on: %s)', (oneLiveRound) => {
      const policy = begun(10_000, oneLiveRound);
      expect(types(policy.roundEnd(seen(1, 0, 0), delivered(GiB), millis(1100)))).toEqual(start);
    });
  });

  it('chooses at the end of the first round, by the bandwidth that it measured', () => {
    const policy = new SteeringPolicy(facts, millis(0));
    expect(policy.begin(millis(0))).toEqual([]);
    expect(policy.strategy).toBeUndefined();
    const actions = policy.roundEnd(seen(1, 50e6, 5e6), delivered(GiB), millis(10_000));
    expect(actions[0]).toEqual({ type: 'strategy', strategy: 'precopy' });
    expect(policy.strategy).toBe('precopy');
  });

  it('does not take pages of zeroes for bandwidth', () => {
    const policy = new SteeringPolicy(
      { ...facts, request: { strategy: 'precopy', maxDowntimeMs: 300 } },
      millis(0),
    );
    const bandwidth = (actions: readonly SteeringAction[]) =>
      actions.flatMap((each) => (each.type === 'progress' ? [each.sample.bandwidthBytesPerSec] : []));
    expect(bandwidth(policy.sample(seen(1, GiB, 0), delivered(100e6), millis(1000)))).toEqual([100e6]);
    expect(bandwidth(policy.sample(seen(1, GiB, 0), delivered(101e6, 50_000), millis(2000)))).toEqual([
      100e6,
    ]);
  });

  it('says nothing more once it has decided', () => {
    const policy = new SteeringPolicy(
      { ...facts, request: { strategy: 'precopy', maxDowntimeMs: 300 } },
      millis(0),
    );
    const actions = policy.roundEnd(seen(1, 1000, 0), delivered(GiB), millis(10_000));
    expect(types(actions)).toEqual(['progress', 'tell', 'reason', 'switchover']);
    expect(policy.roundEnd(seen(2, GiB, 1e9), delivered(GiB), millis(20_000))).toEqual([]);
    expect(policy.sample(seen(2, GiB, 1e9), delivered(GiB), millis(20_000))).toEqual([]);
  });

  it('asks for the dirty rate and lets the one live round decide where there is only one', () => {
    const policy = new SteeringPolicy({ ...facts, oneLiveRound: true }, millis(0));
    expect(types(policy.begin(millis(0)))).toEqual(['reason', 'measure-dirty-rate']);
    policy.dirtyRateMeasured(bytesPerSec(200e6));
    expect(policy.roundEnd(seen(1, 0, 0), delivered(0), millis(1))).toEqual([]);
    expect(types(policy.sample(seen(1, GiB / 5, 0), delivered(800e6), millis(8000)))).toContain(
      'start-postcopy',
    );
  });

  it('gives up where a stall asks for post-copy and post-copy is not possible', () => {
    const request = { strategy: 'precopy', maxDowntimeMs: 10, onStall: 'postcopy' } as const;
    const policy = new SteeringPolicy({ ...facts, request, postcopyObstacle: 'no userfaultfd' }, millis(0));
    let last: SteeringAction[] = [];
    for (let number = 1; number < 20 && !policy.over; number += 1) {
      last = policy.roundEnd(seen(number, 900e6, 500e6), delivered(number * 1e9), millis(number * 10_000));
    }
    expect(last.at(-1)).toMatchObject({ type: 'abort', why: expect.stringContaining('no userfaultfd') });
  });
});
