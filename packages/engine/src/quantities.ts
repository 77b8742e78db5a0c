/**
 * Quantities as people write them. Code and JSON have milliseconds, bytes and bytes per second.
 *
 * Sizes and byte rates: kB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB powers of 1024, and so are K, M, G, T of
 * sizes, as in QEMU's `-m`. Bit rates (kbit, mbit, gbit, tbit, as `tc` writes them) are powers of 1000.
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

/** Of sizes only: "10M" as a rate may mean bits. */
const QEMU_BYTES: ReadonlyMap<string, number> = new Map([
  ['k', 1024],
  ['m', 1024 ** 2],
  ['g', 1024 ** 3],
  ['t', 1024 ** 4],
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

/** "64MiB", "64M", "1.5GB", "4096": bytes, rounded to whole ones. */
export function parseSize(text: string): number {
  const units = new Map([...SIZE_BYTES, ...QEMU_BYTES]);
  return Math.round(quantity(text, units, 'a size', '64MiB, 1.5GB or 4096 (bytes)'));
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
