/** What the link carries, whatever the guest does, and what its changes do to a guest that stands still. */
import { strategies } from '@vmferry/engine/options';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Workload } from '../../src/simulator/dirty/regions.ts';
import type { Simulation } from '../../src/simulator/model.ts';
import { outage } from '../../src/simulator/postcopy/fault-loop.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { GBIT, GiB, QUIET_LINK, simulationOf } from './simulations.ts';

const RANDOM = { zero: 0, text: 0, random: 1, duplicate: 0 };
const pagesPerSec = fc.constantFrom(500, 20_000, 300_000);
const everySeconds = fc.constantFrom(0.1, 5);
const simple: fc.Arbitrary<Workload> = fc.oneof(
  fc.record({ kind: fc.constant('uniform' as const), pagesPerSec }),
  fc.record({ kind: fc.constant('zipf' as const), pagesPerSec, exponent: fc.constantFrom(0.7, 1, 1.3) }),
  fc.record({ kind: fc.constant('sequential' as const), pagesPerSec }),
  fc.record({ kind: fc.constant('strided' as const), pagesPerSec, stride: fc.constantFrom(3, 64, 4096) }),
  fc.record({
    kind: fc.constant('hot-and-cold' as const),
    pagesPerSec,
    hotPages: fc.constant(30_000),
    hotShare: fc.constant(0.9),
  }),
  fc.record({
    kind: fc.constant('moving' as const),
    pagesPerSec,
    windowPages: fc.constant(10_000),
    everySeconds,
    stepPages: fc.constant(1000),
  }),
  fc.record({
    kind: fc.constant('fork-bursts' as const),
    pagesPerSec,
    burstPages: fc.constant(20_000),
    everySeconds,
  }),
  fc.record({ kind: fc.constant('read-mostly' as const), pagesPerSec, readsPerSec: pagesPerSec }),
);
const workloads: fc.Arbitrary<Workload> = fc.oneof(
  { weight: 4, arbitrary: simple },
  fc.record({ kind: fc.constant('mix' as const), parts: fc.array(simple, { minLength: 2, maxLength: 3 }) }),
  fc.record({
    kind: fc.constant('phases' as const),
    phases: fc.array(fc.record({ seconds: fc.constantFrom(0.05, 3), workload: simple }), {
      minLength: 2,
      maxLength: 3,
    }),
  }),
);

describe('the link', () => {
  it('never carries more than the line does, whatever the workload and the strategy', () => {
    fc.assert(
      fc.property(
        workloads,
        fc.constantFrom(...strategies),
        fc.constantFrom(0.1 * GBIT, GBIT, 10 * GBIT),
        fc.constantFrom(GiB, 64 * GiB),
        (workload, strategy, bandwidth, memoryBytes) => {
          const { report } = simulate(
            simulationOf({ guest: { workload, memoryBytes }, link: { bandwidth }, request: { strategy } }),
          );
          expect((report.wireBytes * 1000) / report.totalMs).toBeLessThanOrEqual(bandwidth);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('comes to the end of a post-copy of which next to nothing is wanted at random any more', () => {
    const parts: Workload[] = [
      { kind: 'sequential', pagesPerSec: 20_000 },
      { kind: 'moving', pagesPerSec: 300_000, windowPages: 10_000, everySeconds: 0.1, stepPages: 1000 },
      { kind: 'strided', pagesPerSec: 300_000, stride: 3 },
    ];
    const { report } = simulate(
      simulationOf({
        guest: { workload: { kind: 'mix', parts }, memoryBytes: 64 * GiB },
        link: { bandwidth: GBIT },
        request: { strategy: 'hybrid' },
      }),
    );
    expect(report).toMatchObject({ outcome: 'completed', totalMs: expect.any(Number) });
    expect((report.wireBytes * 1000) / report.totalMs).toBeLessThanOrEqual(GBIT);
  });

  it('carries the rest of a post-copy at its own speed where a walk passes all of memory in a moment', () => {
    const { report } = simulate(
      simulationOf({
        guest: {
          memoryBytes: 64 * GiB,
          workload: { kind: 'strided', stride: 4096, pagesPerSec: 20_000 },
        },
        link: { bandwidth: 0.1 * GBIT },
        request: { strategy: 'postcopy' },
      }),
    );
    expect(report.outcome).toBe('completed');
    const share = (report.wireBytes * 1000) / report.totalMs / (0.1 * GBIT);
    expect(share).toBeGreaterThan(0.9);
    expect(share).toBeLessThan(0.957);
    expect(report.notes).toEqual([]);
  });
});

describe('a link that changes while the guest stands still', () => {
  const stopped = (changes: Simulation['link']['changes'] = []) =>
    simulate(
      simulationOf({
        guest: { workload: { kind: 'uniform', pagesPerSec: 300_000 }, content: RANDOM, oneLiveRound: true },
        link: { bandwidth: GBIT },
        request: { strategy: 'precopy', compress: 'off' },
        changes,
      }),
    ).report;
  const still = stopped();
  /** A second after the guest has stopped. */
  const atMs = still.totalMs - still.downtimeMs + 1000;
  const at = (bandwidth: number, when = atMs) => ({
    atMs: when,
    conditions: { ...QUIET_LINK, bandwidth },
  });

  it('sends the last pages at the speed that there is', () => {
    expect(still.downtimeMs).toBeGreaterThan(20_000);
    const quicker = stopped([at(4 * GBIT)]);
    expect((still.downtimeMs - 1000) / (quicker.downtimeMs - 1000)).toBeGreaterThan(3);
    expect(quicker.wireBytes).toBe(still.wireBytes);
  });

  it('waits out an outage, and gives up a link that never comes back', () => {
    const paused = stopped([at(0), at(GBIT, atMs + 5000)]);
    expect(paused.outcome).toBe('completed');
    expect(paused.downtimeMs - still.downtimeMs).toBeCloseTo(5000, -1);
    expect(stopped([at(0)])).toMatchObject({
      outcome: 'failed',
      error: { code: 'E_LINK_LOST' },
    });
  });

  it('waits for it with the guest’s state as well', () => {
    const moved = (changes: Simulation['link']['changes']) =>
      simulate(
        simulationOf({
          guest: { workload: { kind: 'idle' } },
          link: { bandwidth: GBIT },
          changes,
          request: { strategy: 'postcopy', headStartMs: 0 },
        }),
      ).report;
    // From before the guest stops.
    const paused = moved([at(0, 45), at(GBIT, 3045)]);
    expect(paused.outcome).toBe('completed');
    expect(paused.downtimeMs).toBeGreaterThan(2900);
  });
});

describe('an outage in post-copy', () => {
  const moved = (pagesPerSec: number, outageMs: number) =>
    simulate(
      simulationOf({
        guest: { vcpus: 4, content: RANDOM, workload: { kind: 'uniform', pagesPerSec } },
        link: { bandwidth: GBIT },
        changes:
          outageMs === 0
            ? []
            : [
                { atMs: 10_000, conditions: { ...QUIET_LINK, bandwidth: 0 } },
                { atMs: 10_000 + outageMs, conditions: { ...QUIET_LINK, bandwidth: GBIT } },
              ],
        request: { strategy: 'postcopy', compress: 'off' },
      }),
    ).report;

  it('is a long wait for each vCPU that faults', () => {
    const paused = moved(5000, 8000);
    expect(paused.faults.maxMs).toBeGreaterThan(5000);
    expect(paused.faults.maxMs).toBeLessThan(10_000 + 1);
    expect(paused.totalMs - moved(5000, 0).totalMs).toBeCloseTo(8000, -3);
    expect(moved(5000, 0).faults.maxMs).toBeLessThan(100);
  });

  it('lets a vCPU run until it faults', () => {
    expect(outage(4, 0, 1000)).toEqual({ faults: 0, waitMs: 0, ranMs: 1000 });
    const often = outage(4, 4, 1000);
    expect(often.faults).toBeCloseTo(4, 5);
    expect(often.ranMs).toBeCloseTo(1, 5);
    expect(often.waitMs).toBeCloseTo(999, 5);
    const rarely = outage(4, 0.0004, 1000);
    expect(rarely.faults).toBeCloseTo(0.38, 1);
    expect(rarely.waitMs).toBeGreaterThan(450);
    expect(rarely.waitMs).toBeLessThan(550);
  });
});
