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
      expect(types(policy.sample(seen(1, GiB, 0), delivered(0), millis(1000 + ms - 1)))).toEqual([
        'progress',
      ]);
      expect(types(policy.sample(seen(1, GiB, 0), delivered(0), millis(1000 + ms)))).toEqual([
        'progress',
        ...start,
      ]);
      expect(policy.over).toBe(true);
      expect(policy.headStartOver()).toEqual([]);
    });

    it('lets a quarter of it go ahead and no more', () => {
      const at = (share: number) =>
        types(begun().sample(seen(1, GiB * share, 0), delivered(0), millis(1010)));
      expect(at(0.76)).toEqual(['progress']);
      expect(at(0.75)).toEqual(['progress', ...start]);
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

  it('expects no downtime by a link that was not measured or stands still', () => {
    const policy = new SteeringPolicy(
      { ...facts, request: { strategy: 'precopy', maxDowntimeMs: 300 } },
      millis(0),
    );
    const expected = (actions: readonly SteeringAction[]) =>
      actions.flatMap((each) => (each.type === 'progress' ? [each.sample.expectedDowntimeMs] : []));
    expect(expected(policy.sample(seen(1, GiB, 0), delivered(0), millis(1000)))).toEqual([null]);
    const [moving] = expected(policy.sample(seen(1, GiB, 0), delivered(100e6), millis(2000)));
    expect(moving).toBeGreaterThan(10_000);
    expect(expected(policy.sample(seen(1, GiB, 0), delivered(100e6), millis(3000)))).toEqual([null]);
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

  it('lets what is on its way land before a stop, unless the guest writes as fast', () => {
    const lands = (dirtyRate: number, carried: number) => {
      const policy = new SteeringPolicy(
        { ...facts, request: { strategy: 'precopy', maxDowntimeMs: 300 } },
        millis(0),
      );
      const actions = policy.roundEnd(seen(1, 1000, dirtyRate), delivered(carried), millis(10_000));
      return actions.flatMap((each) => (each.type === 'switchover' ? [each.landsFirst] : []));
    };
    // 100 MB a second.
    expect(lands(40e6, 1e9)).toEqual([true]);
    expect(lands(60e6, 1e9)).toEqual([false]);
    expect(lands(0, 0)).toEqual([false]);
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

  it('takes what the first round left for the dirty rate where the hypervisor has none yet', () => {
    const policy = new SteeringPolicy(facts, millis(0));
    policy.begin(millis(1000));
    policy.sample(seen(1, GiB / 2, 0), delivered(GiB / 4), millis(1250));
    const [, told] = policy.roundEnd(seen(1, 90e6, 0), delivered(GiB / 2), millis(1500));
    expect(told).toMatchObject({ type: 'tell', why: expect.stringMatching(/dirties 172 MiB\/s/) });
  });

  describe('with a deadline', () => {
    const late = (request: object, more: Partial<SteeringFacts> = {}) => {
      const whole = { strategy: 'precopy', maxDowntimeMs: 300, deadlineMs: 5000, ...request } as const;
      const policy = new SteeringPolicy({ ...facts, ...more, request: whole }, millis(0));
      policy.begin(millis(0));
      policy.dirtyRateMeasured(bytesPerSec(1e6));
      expect(types(policy.sample(seen(1, GiB, 0), delivered(90e6), millis(4900)))).toEqual(['progress']);
      return policy;
    };
    const over = (policy: SteeringPolicy) =>
      policy.sample(seen(1, GiB * 0.9, 0), delivered(100e6), millis(5000));
    const once = { oneLiveRound: true } as const;

    it.each([
      ['precopy', undefined, /no time left for throttling/],
      ['precopy', 'abort', /922 MiB of the only round are left/],
      ['hybrid', 'abort', /only round/],
    ] as const)('%s gives up within its one live round (on a stall: %s)', (strategy, onStall, why) => {
      expect(over(late({ strategy, onStall }, once)).at(-1)).toMatchObject({
        type: 'abort',
        code: 'E_DEADLINE',
        why: expect.stringMatching(why),
      });
    });

    it.each(['auto', 'hybrid'] as const)(
      '%s goes over to post-copy within its one live round',
      (strategy) => {
        expect(types(over(late({ strategy }, once)))).toEqual([
          'tell',
          'reason',
          'strategy',
          'start-postcopy',
        ]);
      },
    );

    it('lets the one live round end where the operator would have the guest stopped, and says so once', () => {
      const policy = late({ onStall: 'stop' }, once);
      expect(over(policy)[0]).toMatchObject({ type: 'tell', why: expect.stringMatching(/deadline is over/) });
      expect(types(policy.sample(seen(1, GiB * 0.8, 0), delivered(200e6), millis(5200)))).toEqual([
        'progress',
      ]);
    });

    it('lets the guest go at once where post-copy was asked for', () => {
      const policy = late({ strategy: 'postcopy', headStartMs: 60_000 });
      expect(types(over(policy))).toEqual(['tell', 'reason', 'start-postcopy']);
    });

    it('names it where rounds are given up for it, and not where they are given up for a stall', () => {
      const aborted = over(late({ onStall: 'abort', maxDowntimeMs: 1 }));
      expect(aborted.at(-1)).toMatchObject({ type: 'abort', code: 'E_DEADLINE' });
    });

    it.each([
      ['precopy', 'stop', false],
      ['hybrid', undefined, true],
      ['postcopy', undefined, false],
    ] as const)(
      'does not stop a guest for a destination that takes nothing (%s, %s)',
      (strategy, onStall, oneLiveRound) => {
        const policy = late({ strategy, onStall, headStartMs: 60_000 }, { oneLiveRound });
        policy.sample(seen(1, GiB * 0.9, 0), delivered(90e6), millis(4950));
        const actions = policy.sample(seen(1, GiB * 0.9, 0), delivered(90e6), millis(6000));
        expect(actions.at(-1)).toMatchObject({
          type: 'abort',
          code: 'E_DEADLINE',
          why: expect.stringMatching(/taken nothing for 1\.1 s/),
        });
      },
    );
  });

  describe('where a hypervisor stops the guest by itself', () => {
    it('calls it pre-copy if nothing was chosen before, and says why', () => {
      const policy = new SteeringPolicy(facts, millis(0));
      const actions = policy.stopped();
      expect(types(actions)).toEqual(['strategy', 'tell', 'reason']);
      expect(policy).toMatchObject({ strategy: 'precopy', over: true });
      expect(policy.stopped()).toEqual([]);
    });

    it('leaves the strategy that was chosen', () => {
      const policy = new SteeringPolicy(
        { ...facts, request: { strategy: 'postcopy', maxDowntimeMs: 300, headStartMs: 0 } },
        millis(0),
      );
      policy.begin(millis(0));
      expect(policy.stopped()).toEqual([]);
    });
  });

  it('has chosen pre-copy when it switches over before the first round is over', () => {
    const request = { strategy: 'auto', maxDowntimeMs: 300_000, deadlineMs: 1000 } as const;
    const policy = new SteeringPolicy({ ...facts, request }, millis(0));
    policy.begin(millis(0));
    policy.sample(seen(1, GiB, 0), delivered(GiB / 4), millis(500));
    const actions = policy.sample(seen(1, GiB / 2, 0), delivered(GiB / 2), millis(1000));
    expect(types(actions)).toEqual(['progress', 'strategy', 'tell', 'reason', 'switchover']);
  });
});
