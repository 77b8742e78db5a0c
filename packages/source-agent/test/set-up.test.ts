import { bytes, millis } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { SetUp, type SetUpLimits } from '../src/set-up.ts';

const LIMITS: SetUpLimits = { copies: true, stalledMs: 30_000, deadlineMs: undefined, onStall: undefined };
const MiB = 1024 * 1024;

/** What is said at each time (ms) of so much copied of a total, in MiB. */
function watched(limits: Partial<SetUpLimits> = {}) {
  const copy = new SetUp({ ...LIMITS, ...limits });
  return (at: number, copied?: number, total = 100) => {
    const disks =
      copied === undefined ? undefined : { copiedBytes: bytes(copied * MiB), totalBytes: bytes(total * MiB) };
    const verdict = copy.look({ disks, elapsedMs: at, unansweredMs: 0 }, millis(at));
    return verdict.do === 'give-up' ? verdict.failure.code : verdict.do;
  };
}

describe('disks that are copied', () => {
  it('are waited for as long as some of them comes, however slowly', () => {
    const look = watched();
    for (let minute = 0; minute < 60; minute += 1) {
      expect([look(minute * 60_000, minute), look(minute * 60_000 + 29_999, minute)]).toEqual([
        'wait',
        'wait',
      ]);
      look(minute * 60_000 + 30_000, minute + 0.5);
    }
  });

  it('are given up when nothing of them comes', () => {
    const look = watched();
    expect([look(0, 10), look(29_999, 10), look(30_000, 10), look(31_000, 10)]).toEqual([
      'wait',
      'wait',
      'E_STALLED',
      'E_STALLED',
    ]);
    // What the guest writes meanwhile makes more to do, and is no copying.
    const growing = watched();
    expect([growing(0, 10, 100), growing(30_000, 10, 120)]).toEqual(['wait', 'E_STALLED']);
  });

  it('may take their time to begin, each of them', () => {
    const none = watched();
    expect([0, 299_999].map((at) => none(at))).toEqual(['wait', 'wait']);
    const look = watched();
    expect([look(0, 10, 10), look(299_000, 10, 10), look(299_500, 10, 100)]).toEqual([
      'wait',
      'wait',
      'wait',
    ]);
  });

  it('are given up when neither they nor the memory begin for minutes', () => {
    const none = watched();
    expect([0, 299_999, 300_000].map((at) => none(at))).toEqual(['wait', 'wait', 'E_STALLED']);
    // Copied, and the memory does not follow.
    const look = watched();
    expect([look(0, 9, 10), look(1000, 10, 10), look(300_999, 10, 10), look(301_000, 10, 10)]).toEqual([
      'wait',
      'wait',
      'wait',
      'E_STALLED',
    ]);
  });

  it('are given up at the deadline, begun or not, and nearly done', () => {
    const look = watched({ deadlineMs: 5000 });
    expect([look(4999, 99), look(5000, 99.9)]).toEqual(['wait', 'E_DEADLINE']);
    expect(watched({ deadlineMs: 5000 })(5000)).toBe('E_DEADLINE');
  });

  it('are given up when the hypervisor waits for them and hears nobody, the guest standing still', () => {
    const unanswered = (unansweredMs: number, limits: Partial<SetUpLimits> = {}) =>
      new SetUp({ ...LIMITS, ...limits }).look({ disks: undefined, elapsedMs: 0, unansweredMs }, millis(0));
    expect(unanswered(9999)).toEqual({ do: 'wait' });
    expect(unanswered(10_000)).toMatchObject({ failure: { code: 'E_STALLED' } });
    expect(unanswered(2000, { stalledMs: 2000 })).toMatchObject({ failure: { code: 'E_STALLED' } });
    // Without disks it waits for none.
    expect(unanswered(10_000, { copies: false })).toEqual({ do: 'wait' });
  });

  it('say how much was missing at the deadline', () => {
    const copy = new SetUp({ ...LIMITS, deadlineMs: 5000 });
    const disks = { copiedBytes: bytes(10 * MiB), totalBytes: bytes(100 * MiB) };
    expect(copy.look({ disks, elapsedMs: 5000, unansweredMs: 0 }, millis(0))).toMatchObject({
      failure: { why: 'The deadline of 5 s is over, and 90 MiB of its disks are not copied yet.' },
    });
    expect(copy.look({ disks: undefined, elapsedMs: 5000, unansweredMs: 0 }, millis(0))).toMatchObject({
      failure: { why: 'The deadline of 5 s is over, and nothing of the guest is copied yet.' },
    });
  });
});

describe('disks that the guest writes as fast as they are copied', () => {
  /** So much is left all the time, while more and more is copied; a look a second. */
  const run = (look: ReturnType<typeof watched>, seconds: number) =>
    Array.from({ length: seconds + 1 }, (_, at) => look(at * 1000, 10 + at, 50 + at + (at % 3)));

  it('are told of once, and copied on', () => {
    const said = run(watched(), 300);
    expect(said.indexOf('tell')).toBe(120);
    expect(said.filter((each) => each !== 'wait')).toEqual(['tell']);
  });

  it.each(['postcopy', 'stop', 'throttle'] as const)(
    'are copied on where a stall calls for %s',
    (onStall) => {
      expect(run(watched({ onStall }), 300)).not.toContain('E_STALLED');
    },
  );

  it('are given up where a stall is to end the migration', () => {
    const said = run(watched({ onStall: 'abort' }), 121);
    expect(said.slice(0, 120)).toEqual(Array(120).fill('wait'));
    expect(said.slice(120)).toEqual(['E_STALLED', 'E_STALLED']);
  });

  it('have all their time again when less is left', () => {
    const look = watched({ onStall: 'abort' });
    run(look, 119);
    look(119_500, 129, 168);
    // That one was the least of its span, and the next ones have no less.
    const later = Array.from({ length: 91 }, (_, at) => look(120_000 + at * 1000, 130 + at, 170 + at));
    expect(later.indexOf('E_STALLED')).toBe(90);
  });

  it('are told from those whose sizes are found out one after the other', () => {
    const look = watched({ onStall: 'abort' });
    // First a small one, then a large one as well, after a minute a still larger one.
    const totalAt = (second: number) => (second < 5 ? 10 : second < 60 ? 5000 : 20_000);
    const said = Array.from({ length: 600 }, (_, at) => look(at * 1000, at, totalAt(at)));
    expect(new Set(said)).toEqual(new Set(['wait']));
  });
});
