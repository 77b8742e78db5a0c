import { parseDuration, parseRate, parseSize, UnitError } from '@vmferry/engine/quantities';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatDuration, formatRate, formatSize } from '../src/units.ts';

describe('durations', () => {
  it.each([
    ['300ms', 300],
    ['2s', 2000],
    ['1.5s', 1500],
    ['10m', 600_000],
    ['10min', 600_000],
    ['1h', 3_600_000],
    [' 2 S ', 2000],
  ])('reads %j', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each([
    '',
    '300',
    'ms',
    '-1s',
    '1e3s',
    '1,5s',
    '1 fortnight',
    '0x10ms',
    '١s',
    '9'.repeat(400).concat('h'),
  ])('refuses %j with examples', (text) => {
    expect(() => parseDuration(text)).toThrow(UnitError);
    expect(() => parseDuration(text)).toThrow(/300ms, 2s, 10m or 1h/);
  });

  it('are read as they were meant in any unit', () => {
    const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.constantFrom(...Object.entries(units)), (n, [unit, factor]) => {
        expect(parseDuration(`${n}${unit}`)).toBe(n * factor);
      }),
    );
  });

  it.each([
    [0, '0 ms'],
    [0.4, '0.4 ms'],
    [9.99, '10 ms'],
    [300, '300 ms'],
    [999.6, '1.00 s'],
    [3250, '3.25 s'],
    [59_999, '1 min 00 s'],
    [125_000, '2 min 05 s'],
    [3_599_999, '1 h 00 min'],
    [3_720_000, '1 h 02 min'],
  ])('writes %d ms as %j', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe('rates', () => {
  it.each([
    ['1gbit', 125_000_000],
    ['1Gbit/s', 125_000_000],
    ['500mbit', 62_500_000],
    ['100MB/s', 100_000_000],
    ['12MiB/s', 12 * 1024 * 1024],
    ['125000000', 125_000_000],
    ['0', 0],
  ])('reads %j', (text, rate) => {
    expect(parseRate(text)).toBe(rate);
  });

  it.each(['500mbps', '500 Mbps', '1Gb', '100mb/s', '8bps'])(
    'do not guess whether %j is bits or bytes',
    (text) => {
      expect(() => parseRate(text)).toThrow(/bits or bytes: write 1gbit, 500mbit/);
    },
  );

  it.each(['10M', '20M/s'])('do not take %j, which may be either, for a size', (text) => {
    expect(() => parseRate(text)).toThrow(/is not a rate: write 1gbit, 500mbit/);
  });

  it('name what was written when they refuse it', () => {
    expect(() => parseRate('fast/s')).toThrow(/^"fast\/s" is not a rate: write 1gbit/);
  });
});

describe('sizes', () => {
  it.each([
    ['64MiB', 64 * 1024 * 1024],
    ['1.5GB', 1_500_000_000],
    ['4096', 4096],
    ['1 kib', 1024],
    ['512M', 512 * 1024 * 1024],
    ['2g', 2 * 1024 ** 3],
  ])('reads %j', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [1024 ** 2 - 1, '1.00 MiB'],
    [1.5 * 1024 ** 3, '1.50 GiB'],
    [512 * 1024 ** 4, '512 TiB'],
  ])('writes %d as %j', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  it('and rates are read back as they were written, within what the digits say', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e15, noNaN: true }), (n) => {
        expect(Math.abs(parseSize(formatSize(n)) - n)).toBeLessThanOrEqual(Math.max(1, n * 0.006));
        expect(Math.abs(parseRate(formatRate(n)) - n)).toBeLessThanOrEqual(Math.max(1, n * 0.006));
      }),
    );
  });
});

describe('any text', () => {
  it('is either a finite number, not below zero, or a UnitError', () => {
    const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,20}[a-zA-Z/]{0,6}$/));
    fc.assert(
      fc.property(text, fc.constantFrom(parseDuration, parseRate, parseSize), (written, parse) => {
        try {
          const value = parse(written);
          expect(Number.isFinite(value) && value >= 0).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(UnitError);
        }
      }),
    );
  });
});
