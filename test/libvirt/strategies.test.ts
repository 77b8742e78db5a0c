/** A domain that verifies its own memory moves there and back, through agents between two libvirtds. */
import type { JobStatistics } from '@vmferry/native/libvirt/job';
import { expect, test } from 'vitest';
import { follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';

const rig = useTwoLibvirts();

test('a domain moves there and back by every strategy, and nothing of it is lost', async () => {
  const { libvirts } = rig;
  const domain = await libvirts.boot({ zeroPercent: 10 });
  const agents = { a: await libvirts.agents('a'), b: await libvirts.agents('b') };
  for (const [from, into, strategy] of [
    ['a', 'b', 'precopy'],
    ['b', 'a', 'postcopy'],
    ['a', 'b', 'hybrid'],
    ['b', 'a', 'auto'],
  ] as const) {
    const there = await domain.awaitOn(into);
    const told: JobStatistics[] = [];
    const subscription = await libvirts.to[from].subscribe('job-completed', ({ statistics }) => {
      told.push(statistics);
    });
    const { report } = await follow(agents[from].migrate({ guest: domain.uri, strategy }));
    await subscription.close();
    expect(report.error, strategy).toBeNull();
    expect(report.outcome).toBe('completed');
    if (strategy !== 'auto') expect(report.strategy).toBe(strategy);
    expect(await domain.states()).toContain(`${from}: gone`);
    await there.arrived();
    // What is reported is what the hypervisors' own events say.
    const handover = domain.watcher.handovers().at(-1);
    expect(handover).toMatchObject({ from, to: into });
    expect(Math.abs(report.downtimeMs - (handover?.downtimeMs ?? 0))).toBeLessThanOrEqual(
      report.downtimeUncertaintyMs + 1,
    );
    // libvirt counts what QEMU wrote; in post-copy pages that were read from its memory come twice there.
    const {
      memory_normal = 0n,
      memory_constant = 0n,
      memory_normal_bytes = 0n,
      memory_iteration = 0n,
      time_elapsed,
      downtime = 0n,
    } = told.at(-1)!;
    const pages = report.pages.raw + report.pages.zero;
    expect(pages).toBeGreaterThanOrEqual(192 * 256);
    if (report.strategy === 'precopy') {
      expect(BigInt(pages)).toBe(memory_normal + memory_constant);
      expect(BigInt(report.pages.raw) * 4096n).toBe(memory_normal_bytes);
      // QEMU counts each reading of the dirty log, the one with the guest stopped as well.
      expect([1, 2]).toContain(Number(memory_iteration) - report.rounds.length);
      // libvirt's ends with its own finish call, and its clocks are the hosts'.
      expect(Math.abs(report.downtimeMs - Number(downtime))).toBeLessThan(250);
    } else expect(BigInt(pages)).toBeLessThanOrEqual(memory_normal + memory_constant);
    console.log(
      `${report.strategy} from ${from}: ${report.totalMs.toFixed()} ms, downtime ${report.downtimeMs.toFixed(1)} ms, ` +
        `${pages} pages, ${report.faults.count} faults (libvirt: ${time_elapsed} ms, ${downtime} ms, ` +
        `${memory_normal + memory_constant} pages, ${memory_iteration} rounds)`,
    );
  }
  const { ticks } = await verifyHistory(domain.places);
  expect(ticks.every(({ bad }) => bad === 0)).toBe(true);
}, 90_000);
