import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_ROUND_ROWS, ReportBuilder } from '../../src/report/builder.ts';
import { Quantiles } from '../../src/report/quantiles.ts';
import { bytes, bytesPerSec, millis, round } from '../../src/units.ts';

const builder = () => new ReportBuilder({ guest: 'sim:g', strategy: 'auto', startedAt: millis(1000) });

describe('the report builder', () => {
  it('gives each round what was sent since the one before', () => {
    const report = builder();
    report.firstRound(millis(1500));
    report.pages({ raw: 10, zero: 5 }, bytes(61_440));
    report.wire(bytes(30_000));
    const row = report.roundEnd({ round: round(1), now: millis(2000), dirtyBytesPerSec: bytesPerSec(7) });
    expect(row).toEqual({
      round: 1,
      pages: 15,
      rawBytes: 61_440,
      wireBytes: 30_000,
      durationMs: 500,
      dirtyBytesPerSec: 7,
      bandwidthBytesPerSec: 122_880,
    });
    report.pages({ raw: 1 }, bytes(4096));
    expect(
      report.roundEnd({ round: round(2), now: millis(2000), dirtyBytesPerSec: bytesPerSec(7) }),
    ).toMatchObject({ pages: 1, rawBytes: 4096, wireBytes: 0, durationMs: 0, bandwidthBytesPerSec: 0 });
    const built = report.build({ outcome: 'completed', now: millis(3000) });
    expect(built).toMatchObject({ totalMs: 2000, rawBytes: 65_536, pages: { raw: 11, zero: 5 } });
    expect(built.rounds.length).toBe(2);
  });

  it('counts for a round what was sent until it was over, however late its figures are known', () => {
    const report = builder();
    report.pages({ raw: 10 }, bytes(40_960));
    report.roundOver(round(1), millis(1400));
    report.pages({ raw: 3 }, bytes(12_288));
    const first = report.roundEnd({ round: round(1), now: millis(1900), dirtyBytesPerSec: bytesPerSec(7) });
    expect(first).toMatchObject({ pages: 10, rawBytes: 40_960, durationMs: 400 });
    report.roundOver(round(2), millis(1950));
    const third = report.roundEnd({ round: round(3), now: millis(2000), dirtyBytesPerSec: bytesPerSec(7) });
    expect(third).toMatchObject({ pages: 3, durationMs: 600 });
  });

  it('says what was not measured, and shows it as 0', () => {
    const report = builder();
    report.stopped();
    report.downtimePart('commitMs', millis(3));
    const built = report.build({ outcome: 'completed', now: millis(2000) });
    expect(built.downtimeMs).toBe(0);
    expect(built.downtime).toEqual({ finalPagesMs: 0, deviceStateMs: 0, commitMs: 3, resumeMs: 0 });
    expect(built.notes.join()).toMatch(/Not measured .*the downtime, .*final pages/);
  });

  it('says nothing of the kind when everything was measured', () => {
    const report = builder();
    report.downtime({ downtimeMs: millis(40), uncertaintyMs: millis(1) });
    for (const part of ['finalPagesMs', 'deviceStateMs', 'commitMs', 'resumeMs'] as const) {
      report.downtimePart(part, millis(10));
    }
    report.link({ streams: 2, reconnects: 0, tls: true });
    report.note('carried verbatim');
    report.note('carried verbatim');
    expect(report.build({ outcome: 'completed', now: millis(2000) })).toMatchObject({
      notes: ['carried verbatim'],
      downtimeMs: 40,
      link: { tls: true },
    });
  });

  it('keeps the sums of ever so many rounds in a bounded number of rows', () => {
    const report = builder();
    const rounds = 5 * MAX_ROUND_ROWS + 3;
    for (let n = 1; n <= rounds; n += 1) {
      report.pages({ raw: 1 }, bytes(4096));
      report.roundEnd({ round: round(n), now: millis(1000 + n), dirtyBytesPerSec: bytesPerSec(8) });
    }
    const { rounds: rows, notes } = report.build({ outcome: 'completed', now: millis(9000) });
    expect(rows.length).toBeLessThanOrEqual(MAX_ROUND_ROWS);
    expect(rows.reduce((sum, row) => sum + row.pages, 0)).toBe(rounds);
    expect(rows.reduce((sum, row) => sum + row.durationMs, 0)).toBe(rounds);
    expect(rows.every((row) => row.dirtyBytesPerSec === 8)).toBe(true);
    expect(notes.join()).toMatch(/many rounds/);
  });
});

describe('the quantiles', () => {
  it('are at most a thirty-second above the true ones, and the maximum is exact', () => {
    const durations = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), {
      minLength: 1,
      maxLength: 200,
    });
    fc.assert(
      fc.property(durations, fc.constantFrom(0.5, 0.9, 0.99, 1), (list, share) => {
        const quantiles = new Quantiles();
        for (const duration of list) quantiles.add(millis(duration));
        const sorted = [...list].sort((a, b) => a - b);
        const truth = sorted[Math.ceil(share * list.length) - 1]!;
        const found = quantiles.quantile(share);
        expect(found).toBeGreaterThanOrEqual(truth * 0.999_999);
        expect(found).toBeLessThanOrEqual(truth * (1 + 1 / 32) + 0.001_001);
        expect(quantiles.max).toBe(sorted.at(-1));
      }),
    );
  });

  it('count a duration as often as there were some, parts of one too', () => {
    const quantiles = new Quantiles();
    quantiles.add(millis(1), 98.5);
    quantiles.add(millis(100), 1.5);
    expect(quantiles.count).toBe(100);
    expect(quantiles.quantile(0.5)).toBeLessThan(1.1);
    expect(quantiles.quantile(0.99)).toBeGreaterThan(99);
    const one = new Quantiles();
    one.add(millis(3), 0.4);
    expect(one.quantile(0.5)).toBe(3);
  });

  it('are 0 when nothing was measured', () => {
    expect(new Quantiles().quantile(0.5)).toBe(0);
  });
});
