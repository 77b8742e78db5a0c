/** Figures as people read them, for the reasons that policies give. */

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** "12.3 MiB" */
export function size(bytes: number): string {
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short(value)} ${SIZES[unit]}`;
}

/** "12.3 MiB/s" */
export function rate(bytesPerSec: number): string {
  return `${size(bytesPerSec)}/s`;
}

/** "85 ms", "2.4 s", "3 min 5 s" */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return 'for ever';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${short(ms / 1000)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

function short(value: number): string {
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}
