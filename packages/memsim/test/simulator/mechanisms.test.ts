/** What the model has of the agents and the hypervisor, each by what it changes. */
import { describe, expect, it } from 'vitest';
import { BLANK, type Content } from '../../src/simulator/content.ts';
import { DEFAULT_COSTS } from '../../src/simulator/costs.ts';
import type { Place, SimulatedGuest } from '../../src/simulator/model.ts';
import { backgroundShare } from '../../src/simulator/postcopy/fault-loop.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { GBIT, GiB, simulationOf } from './simulations.ts';

const MBIT = GBIT / 1000;

describe('when the guest stops', () => {
  const stopped = (costs: Partial<typeof DEFAULT_COSTS>, guest: Partial<SimulatedGuest>) =>
    simulate(
      simulationOf({
        guest,
        link: { bandwidth: 200 * MBIT },
        request: { strategy: 'precopy', compress: 'lz4' },
        costs: { ...DEFAULT_COSTS, ...costs },
      }),
    ).report;

  it('what is ahead of the link has to cross it', () => {
    const empty = stopped({ bufferedMs: 0, inFlightMs: 0, inFlightBytes: 0 }, { oneLiveRound: true });
    const ahead = stopped({ bufferedMs: 60, inFlightMs: 0, inFlightBytes: 0 }, { oneLiveRound: true });
    const more = ahead.downtimeMs - empty.downtimeMs;
    expect(more).toBeGreaterThan(50);
    expect(more).toBeLessThan(75);
  });

  it('it writes nothing while it is being stopped', () => {
    const nothing = { bufferedMs: 0, inFlightMs: 0, inFlightBytes: 0 };
    const of = (stopMs: number) => stopped({ ...nothing, stopMs }, { oneLiveRound: true });
    expect(of(500).downtimeMs - of(0).downtimeMs).toBeCloseTo(500, 0);
    expect(of(500).wireBytes).toBe(of(0).wireBytes);
  });

  it('nothing waits for a link and a destination that are faster than the source', () => {
    const more = (sendPageUs: number, takePageUs: number) => {
      const slow = { sendPageUs, takePageUs, inFlightMs: 0, inFlightBytes: 0 };
      const empty = stopped({ ...slow, bufferedMs: 0 }, { oneLiveRound: true });
      return stopped({ ...slow, bufferedMs: 60 }, { oneLiveRound: true }).downtimeMs - empty.downtimeMs;
    };
    expect(more(500, 5)).toBeLessThan(2);
    // All of it waits for a destination that is slower; between hosts of the same speed there is half of it.
    expect(more(5, 500)).toBeGreaterThan(40);
    expect(more(500, 500) / more(5, 500)).toBeCloseTo(0.5, 1);
  });

  it('batches of short rounds are small, and little of them is ahead', () => {
    const quiet = { workload: { kind: 'uniform', pagesPerSec: 20 } } as const;
    const empty = stopped({ bufferedMs: 0, inFlightMs: 0, inFlightBytes: 0 }, quiet);
    const ahead = stopped({ bufferedMs: 60, inFlightMs: 0, inFlightBytes: 0 }, quiet);
    expect(ahead.downtimeMs - empty.downtimeMs).toBeLessThan(25);
  });

  it('pages that were zeroes before the guest wrote them weigh what is in them now', () => {
    const written = (ranSeconds: number) =>
      simulate(
        simulationOf({
          guest: {
            ranSeconds,
            oneLiveRound: true,
            content: { zero: 0.9, text: 0.1, random: 0, duplicate: 0, writtenLeft: 1 },
            workload: { kind: 'uniform', pagesPerSec: 50_000, region: { first: 0, pages: 20_000 } },
          },
          link: { bandwidth: 200 * MBIT },
          request: { strategy: 'precopy', compress: 'lz4' },
        }),
      ).report.downtimeMs;
    expect(written(0) / written(60)).toBeCloseTo(1, 1);
    // 20 000 pages at 24 MB/s.
    expect(written(0)).toBeGreaterThan(3300);
  });
});

describe('LZ4 HC', () => {
  const moved = (compress: 'lz4' | 'lz4hc', bandwidth: number, content: Content) =>
    simulate(
      simulationOf({
        guest: { content, workload: { kind: 'idle' } },
        link: { bandwidth },
        request: { strategy: 'precopy', compress },
        costs: { ...DEFAULT_COSTS, packCores: 2 },
      }),
    ).report;
  const TEXT = { zero: 0, text: 1, random: 0, duplicate: 0 };

  it('packs text further than LZ4, and pays on a slow link only', () => {
    const [slow, slowHc] = [moved('lz4', 200 * MBIT, TEXT), moved('lz4hc', 200 * MBIT, TEXT)];
    expect(slowHc.wireBytes / slow.wireBytes).toBeCloseTo(0.377 / 0.507, 2);
    expect(slowHc.totalMs / slow.totalMs).toBeCloseTo(0.377 / 0.507, 1);
    // Two cores pack 190 MB a second, where LZ4 packs 800.
    expect(moved('lz4hc', 10 * GBIT, TEXT).totalMs / moved('lz4', 10 * GBIT, TEXT).totalMs).toBeGreaterThan(
      3,
    );
  });

  it('costs nothing where nothing packs', () => {
    const random = { zero: 0, text: 0, random: 1, duplicate: 0 };
    const [lz4, hc] = [moved('lz4', GBIT, random), moved('lz4hc', GBIT, random)];
    expect(hc.wireBytes).toBe(lz4.wireBytes);
    expect(hc.totalMs).toBeCloseTo(lz4.totalMs, 6);
  });

  it('packs text of which it is known how far LZ4 packs it as much further', () => {
    const left = (textLeft: number) => {
      const content = { ...TEXT, textLeft };
      return moved('lz4hc', GBIT, content).wireBytes / moved('lz4', GBIT, content).wireBytes;
    };
    expect(left(0.507)).toBeCloseTo(0.377 / 0.507, 2);
    // As measured on a program's text.
    expect(left(0.575)).toBeCloseTo(0.467 / 0.575, 1);
    expect(left(1)).toBeCloseTo(1, 6);
  });
});

describe('hosts and link that take about the same time', () => {
  const totalMs = (sendPageUs: number) =>
    simulate(
      simulationOf({
        guest: { workload: { kind: 'idle' }, content: { zero: 0, text: 0, random: 1, duplicate: 0 } },
        link: { bandwidth: GBIT },
        request: { strategy: 'precopy', compress: 'off' },
        costs: { ...DEFAULT_COSTS, sendPageUs, takePageUs: sendPageUs },
      }),
    ).report.totalMs;

  it('wait for each other, those of which one is much faster do not', () => {
    const link = totalMs(0.001);
    // A page takes 34 us on this link.
    expect(totalMs(34) / link).toBeGreaterThan(1.2);
    expect(totalMs(34) / link).toBeLessThan(1.25);
    expect(totalMs(3.4) / link).toBeLessThan(1.01);
    expect(totalMs(340) / totalMs(170)).toBeCloseTo(2, 1);
  });
});

describe('a guest that goes before its memory', () => {
  const moved = (
    strategy: 'postcopy' | 'hybrid',
    guest: Partial<SimulatedGuest>,
    costs: Partial<typeof DEFAULT_COSTS>,
  ) =>
    simulate(
      simulationOf({
        guest: {
          workload: { kind: 'uniform', pagesPerSec: 5000, region: { first: 0, pages: 50_000 } },
          ...guest,
        },
        link: { bandwidth: 200 * MBIT },
        request: { strategy, compress: 'lz4' },
        costs: { ...DEFAULT_COSTS, heldBytes: 0, ...costs },
      }),
    ).report;
  const AHEAD = { bufferedMs: 60, inFlightMs: 0, inFlightBytes: 0 };
  const NOTHING = { ...AHEAD, bufferedMs: 0 };

  it('does not stand still for what is on its way, and is on its own way later for that', () => {
    const of = (costs: typeof AHEAD) => moved('postcopy', {}, costs);
    expect(of(AHEAD).downtimeMs).toBeCloseTo(of(NOTHING).downtimeMs, 0);
    expect(of(AHEAD).pages.raw).toBeGreaterThanOrEqual(of(NOTHING).pages.raw);
    const later = (costs: typeof AHEAD) => moved('hybrid', {}, costs);
    expect(later(AHEAD).downtimeMs).toBeCloseTo(later(NOTHING).downtimeMs, 0);
  });

  it('stands still for it at the end of a round that its hypervisor ends by itself', () => {
    const of = (costs: typeof AHEAD) => moved('hybrid', { oneLiveRound: true }, costs).downtimeMs;
    expect(of(AHEAD) - of(NOTHING)).toBeGreaterThan(40);
  });

  it('stands still for what is on its way still after a while', () => {
    const of = (bufferedMs: number) =>
      moved('postcopy', {}, { ...AHEAD, bufferedMs, bufferedBytes: 1e9 }).downtimeMs;
    expect(of(500) - of(0)).toBeGreaterThan(250);
    expect(of(500) - of(0)).toBeLessThan(350);
  });

  it('has what the hypervisor’s socket holds before its state', () => {
    const of = (heldBytes: number) => moved('postcopy', {}, { heldBytes }).downtimeMs;
    // A mebibyte, of which half to two thirds are left, at 24 MB/s.
    expect(of(2 ** 20) - of(0)).toBeGreaterThan(20);
    expect(of(2 ** 20) - of(0)).toBeLessThan(40);
  });

  it('has what was read ahead of the agent before its state', () => {
    const of = (heldBatches: number) => moved('postcopy', {}, { heldBatches }).downtimeMs;
    // Two batches of 10 ms.
    expect(of(2) - of(0)).toBeGreaterThan(14);
    expect(of(2) - of(0)).toBeLessThan(24);
  });

  it('is told of each range that was sent in vain, and not of pages that were not sent', () => {
    const of = (pages: number, discardUs: number) =>
      moved(
        'postcopy',
        { workload: { kind: 'uniform', pagesPerSec: 20_000, region: { first: 0, pages } } },
        { discardUs },
      ).downtimeMs;
    const written = of(1000, 100) - of(1000, 0);
    // Pages of which all were written again are one range.
    expect(written).toBeLessThan(5);
    expect(of(20_000, 100) - of(20_000, 0)).toBeGreaterThan(200);
    const elsewhere = (discardUs: number) =>
      moved(
        'postcopy',
        { workload: { kind: 'uniform', pagesPerSec: 20_000, region: { first: 800_000, pages: 20_000 } } },
        { discardUs },
      ).downtimeMs;
    expect(elsewhere(100) - elsewhere(0)).toBeLessThan(10);
  });
});

describe('where memory holds something else than elsewhere', () => {
  const PAGES = 2 ** 17;
  /** The end of memory packs to so much, the rest to half. */
  const endsWith = (left: number, costs: Partial<typeof DEFAULT_COSTS> = {}) =>
    simulate(
      simulationOf({
        guest: {
          memoryBytes: PAGES * 4096,
          oneLiveRound: true,
          workload: { kind: 'idle' },
          content: { zero: 0, text: 1, random: 0, duplicate: 0, textLeft: 0.5 },
          places: [
            { region: { first: PAGES / 2, pages: PAGES / 2 - 4000 }, held: BLANK },
            { region: { first: PAGES - 4000, pages: 4000 }, held: { zero: 0, left, hastyLeft: left } },
          ],
        },
        link: { bandwidth: 100 * MBIT },
        request: { strategy: 'hybrid', compress: 'lz4' },
        costs: { ...DEFAULT_COSTS, ...costs },
      }),
    );

  it('a guest stands still for what was sent last, which may be next to nothing', () => {
    expect(endsWith(0.5).report.downtimeMs - endsWith(0).report.downtimeMs).toBeGreaterThan(15);
    expect(endsWith(1).report.downtimeMs - endsWith(0.5).report.downtimeMs).toBeGreaterThan(15);
  });

  it('its hypervisor is behind all zeroes while the link is before them', () => {
    const { decisions } = endsWith(0.5);
    expect(decisions.at(-1)?.why).toMatch(/\((1[4-9]|2\d)\.\d MiB are left\)/);
  });

  it('a hypervisor that is told to hand over goes on for half of the time between two looks', () => {
    const missing = (leadMs: number) => endsWith(0.5, { leadMs }).postcopy!.missingPages;
    // 25 ms of pages of which half is left, at 12 MB/s.
    expect(missing(0) - missing(50)).toBeGreaterThan(110);
    expect(missing(0) - missing(50)).toBeLessThan(190);
  });

  it('what its socket holds is from where it was', () => {
    const downtimeMs = (first: number) =>
      simulate(
        simulationOf({
          guest: {
            workload: { kind: 'idle' },
            content: { zero: 0, text: 1, random: 0, duplicate: 0, textLeft: 0.2 },
            places: [{ region: { first, pages: 2 ** 16 }, held: { zero: 0, left: 1, hastyLeft: 1 } }],
          },
          link: { bandwidth: 100 * MBIT },
          request: { strategy: 'postcopy', compress: 'lz4' },
        }),
      ).report.downtimeMs;
    // 584 KiB, all of them or a fifth, at 12 MB/s.
    expect(downtimeMs(0) - downtimeMs(2 ** 19)).toBeGreaterThan(25);
    expect(downtimeMs(0) - downtimeMs(2 ** 19)).toBeLessThan(60);
  });
});

describe('what nobody ever wrote', () => {
  it('is zeroes, and sent as fast, but for what the workload writes there', () => {
    const report = (blank: Place['region'] | undefined, first: number) =>
      simulate(
        simulationOf({
          guest: {
            places: blank ? [{ region: blank, held: BLANK }] : [],
            ranSeconds: 100,
            content: { zero: 0, text: 0, random: 1, duplicate: 0 },
            workload: { kind: 'uniform', pagesPerSec: 5000, region: { first, pages: 1000 } },
          },
          request: { strategy: 'postcopy', compress: 'off' },
        }),
      ).report;
    const half = { first: 2 ** 19, pages: 2 ** 19 };
    expect(report(half, 0).pages.zero).toBeCloseTo(2 ** 19, -3);
    expect(report(undefined, 0).pages.zero).toBe(0);
    expect(report(half, 0).pages.zero - report(half, 2 ** 19).pages.zero).toBeGreaterThan(800);
    expect(report(half, 0).wireBytes / report(undefined, 0).wireBytes).toBeCloseTo(0.5, 1);
  });
});

describe('a post-copy that begins at once', () => {
  const downtimeMs = (bandwidth: number, leadBytes: number) =>
    simulate(
      simulationOf({
        link: { bandwidth },
        request: { strategy: 'postcopy', headStartMs: 0 },
        costs: { ...DEFAULT_COSTS, leadMs: 50, leadBytes },
      }),
    ).report.downtimeMs;

  it('has what the hypervisor had begun to send before its state, as far as the link is slow', () => {
    // 2.4 MB take 200 ms, 50 of which had passed.
    expect(downtimeMs(100 * MBIT, 2.4e6) - downtimeMs(100 * MBIT, 0)).toBeCloseTo(151, -1);
    expect(downtimeMs(GBIT, 2.4e6)).toBeCloseTo(downtimeMs(GBIT, 0), 3);
  });

  it('packs in haste on a fast link only', () => {
    const bytes = (bandwidth: number) =>
      simulate(
        simulationOf({
          guest: { workload: { kind: 'idle' } },
          link: { bandwidth },
          request: { strategy: 'postcopy', compress: 'lz4' },
        }),
      ).report.wireBytes;
    expect(bytes(GBIT) / bytes(100 * MBIT)).toBeGreaterThan(1.15);
  });
});

describe('the background of a post-copy', () => {
  const share = (atRandomPerMs: number, walksPerMs: number, waitMs = 1, arrivedMs = 1e6) =>
    backgroundShare({
      vcpus: 1,
      atRandomPerMs,
      walksPerMs,
      loop: { faultsPerMs: 1 / (waitMs + 1 / (atRandomPerMs + walksPerMs)), waitMs, running: 0.5 },
      neededBytes: 2 ** 20,
      batchBytes: 2 ** 18,
      batchMs: 2,
      linkBytesPerSec: GBIT,
      arrivedMs,
    });

  it('has the whole link where no fault comes', () => {
    expect(share(1e-7, 0)).toBeCloseTo(1, 2);
  });

  it('has less the more often faults come, and its grant where they never cease', () => {
    const shares = [0.01, 0.05, 0.2, 5].map((perMs) => share(perMs, 0));
    expect(shares).toEqual(shares.toSorted((a, b) => b - a));
    // A megabyte may go, which four batches of 2 ms are, every 16 ms.
    expect(share(1000, 0, 0.2)).toBeCloseTo(0.5, 2);
  });

  it('leaves a guest that has just arrived alone, and grants nothing', () => {
    // Every tenth pause is longer than twenty milliseconds, of fifty hardly any.
    expect(share(0.1, 0, 1, 100)).toBeLessThan(share(0.1, 0) / 5);
    expect(share(1000, 0, 0.2, 100)).toBeLessThan(0.01);
  });

  it('has no grant as long as it has its turn now and then', () => {
    // Waits of a millisecond and a half leave it a batch every twenty milliseconds or so.
    expect(share(1000, 0, 1.5)).toBeLessThan(0.2);
  });

  it('has what is left between the faults of a walk', () => {
    expect(share(0, 1 / 100)).toBeGreaterThan(0.5);
    expect(share(0, 1 / 5)).toBeLessThan(share(0, 1 / 20));
  });
});

describe('a simulated guest of any size', () => {
  it('has no more ahead than was sent', () => {
    const { report } = simulate(
      simulationOf({
        guest: { memoryBytes: GiB / 1024, workload: { kind: 'idle' } },
        link: { bandwidth: MBIT },
        request: { strategy: 'hybrid', compress: 'off' },
      }),
    );
    // A mebibyte at 1 Mbit/s, of which three tenths are zeroes.
    expect(report.downtimeMs).toBeLessThan(12_000);
  });
});
