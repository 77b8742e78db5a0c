/**
 * Units as people write and read them. Code and JSON have milliseconds, bytes and bytes per second.
 *
 * Sizes and byte rates: kB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB powers of 1024. Bit rates
 * (kbit, mbit, gbit, tbit, as `tc` writes them) are powers of 1000.
 */

/** A value that a person wrote and that means nothing here; the message ends with examples. */
export class UnitError extends Error {
  override readonly name = 'UnitError';
}

const DURATION_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['min', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

const SIZE_BYTES: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['b', 1],
  ['kb', 1e3],
  ['mb', 1e6],
  ['gb', 1e9],
  ['tb', 1e12],
  ['kib', 1024],
  ['mib', 1024 ** 2],
  ['gib', 1024 ** 3],
  ['tib', 1024 ** 4],
]);

const BIT_RATE_BYTES: ReadonlyMap<string, number> = new Map([
  ['bit', 1 / 8],
  ['kbit', 1e3 / 8],
  ['mbit', 1e6 / 8],
  ['gbit', 1e9 / 8],
  ['tbit', 1e12 / 8],
]);

const QUANTITY = /^(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)$/;

/** "300ms", "2s", "1.5m", "1h": milliseconds. A number needs its unit. */
export function parseDuration(text: string): number {
  return quantity(text, DURATION_MS, 'a duration', '300ms, 2s, 10m or 1h');
}

/** "64MiB", "1.5GB", "4096": bytes, rounded to whole ones. */
export function parseSize(text: string): number {
  return Math.round(quantity(text, SIZE_BYTES, 'a size', '64MiB, 1.5GB or 4096 (bytes)'));
}

/** "1gbit", "500mbit/s", "100MB/s", "12MiB/s", "125000000": bytes per second, rounded to whole ones. */
export function parseRate(text: string): number {
  const examples = '1gbit, 500mbit, 100MB/s, 12MiB/s or 125000000 (bytes per second)';
  // "mbps" is megabytes to `tc` and megabits to most people, and so is "Mb" to one or the other.
  const ambiguous =
    /^[\d.\s]*(?:[kmgt]?bps|[kmgt]b(?:\/s)?)$/i.test(text.trim()) && !/B(?:\/s)?$/.test(text.trim());
  if (ambiguous) throw new UnitError(`${JSON.stringify(text)} may mean bits or bytes: write ${examples}`);
  const withoutTime = text.trim().replace(/(?<=[a-z])\/s$/i, '');
  const units = new Map([...SIZE_BYTES, ...BIT_RATE_BYTES]);
  return Math.round(quantity(withoutTime, units, 'a rate', examples, text));
}

function quantity(
  text: string,
  units: ReadonlyMap<string, number>,
  what: string,
  examples: string,
  written = text,
): number {
  const match = QUANTITY.exec(text.trim().toLowerCase());
  const factor = units.get(match?.[2] ?? '');
  if (match === null || factor === undefined) {
    throw new UnitError(`${JSON.stringify(written)} is not ${what}: write ${examples}`);
  }
  const value = Number(match[1]) * factor;
  if (!Number.isFinite(value) || value > Number.MAX_SAFE_INTEGER) {
    throw new UnitError(`${JSON.stringify(written)} is too much for ${what}: write ${examples}`);
  }
  return value;
}

/** "0.4 ms", "12 ms", "3.25 s", "2 min 05 s", "1 h 02 min" */
export function formatDuration(ms: number): string {
  if (ms < 9.95) return `${trim(ms, 1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_995) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** "512 B", "1.50 MiB" */
export function formatSize(bytes: number): string {
  return scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** "118 MB/s": rates are read against links, which come in powers of 1000. */
export function formatRate(bytesPerSec: number): string {
  return scaled(bytesPerSec, 1000, ['B/s', 'kB/s', 'MB/s', 'GB/s', 'TB/s']);
}

function scaled(amount: number, base: number, units: readonly string[]): string {
  let value = amount;
  let unit = 0;
  // 999.5 would be written as 1000 of the smaller unit.
  while (unit < units.length - 1 && value >= (unit === 0 ? base : base - 0.5)) {
    value /= base;
    unit++;
  }
  if (unit === 0) return `${Math.round(value)} ${units[0]}`;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${units[unit]}`;
}

function trim(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.0+$/, '');
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}
