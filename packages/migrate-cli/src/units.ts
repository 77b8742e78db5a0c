/** Units as people read them: sizes in powers of 1024, rates in powers of 1000. */

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
