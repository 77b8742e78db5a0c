/** When the guest stopped and ran, in whichever order the news of it come. */
import { machineNow } from '@vmferry/agent-core/machine';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { ClockOffset } from '@vmferry/engine/clock/offset';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { millis } from '@vmferry/engine/units';
import { expect, test, vi } from 'vitest';
import { Times } from '../src/times.ts';

/** The guest stood still for 40 ms, from 60 ms ago; the clocks agree. */
function reportOf(tell: (times: Times, stop: () => void, run: () => void) => void): MigrationReport {
  const began = machineNow();
  const builder = new ReportBuilder({ guest: 'sim:a', strategy: 'postcopy', startedAt: began });
  const clock = new ClockOffset();
  const now = wallClockMs();
  clock.add({ t0: millis(now), t1: millis(now), t2: millis(now), t3: millis(now) });
  const times = new Times(began, builder, () => clock);
  tell(
    times,
    () => times.stop(millis(now - 60)),
    () => times.running(millis(now - 20), { pagesFollow: true }),
  );
  return builder.build({ outcome: 'completed', now: times.ended, error: null });
}

test('the downtime is from the stop to the resumption', () => {
  const { downtimeMs } = reportOf((times, stop, run) => {
    stop();
    times.ready();
    times.commit();
    run();
  });
  expect(downtimeMs).toBeCloseTo(40);
});

test('a stop that is heard of after the guest runs tells the same, and parts that are none of them negative', () => {
  const { downtimeMs, downtime } = reportOf((times, stop, run) => {
    times.ready();
    times.commit();
    run();
    stop();
  });
  expect(downtimeMs).toBeCloseTo(40);
  expect(downtime.finalPagesMs).toBeGreaterThan(50);
  expect(Object.values(downtime).every((part) => part >= 0)).toBe(true);
});

test('a post-copy that does not come to its end is not over when its guest runs', async () => {
  const took = (pagesFollow: boolean): Times => {
    const builder = new ReportBuilder({ guest: 'sim:a', strategy: 'auto', startedAt: machineNow() });
    const times = new Times(machineNow(), builder, () => undefined);
    times.running(millis(wallClockMs()), { pagesFollow });
    return times;
  };
  const [whole, halted] = [took(false), took(true)];
  const ran = machineNow();
  await vi.waitFor(() => expect(machineNow()).toBeGreaterThan(ran + 5));
  expect(whole.ended).toBeLessThanOrEqual(ran);
  expect(halted.ended).toBeGreaterThan(ran + 5);
});
