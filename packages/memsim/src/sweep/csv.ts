/** Rows as RFC 4180 has them, with a head. */
import type { SweepRow } from './row.ts';

const COLUMNS: readonly (keyof SweepRow)[] = [
  'guest',
  'memoryBytes',
  'link',
  'strategy',
  'chosen',
  'outcome',
  'totalMs',
  'downtimeMs',
  'rounds',
  'rawBytes',
  'wireBytes',
  'finalBytes',
  'faults',
  'faultP50Ms',
  'faultP99Ms',
  'faultMaxMs',
  'reason',
  'error',
];

export function csvOf(rows: readonly SweepRow[]): string {
  const lines = [COLUMNS.join(','), ...rows.map((row) => COLUMNS.map((key) => cell(row[key])).join(','))];
  return `${lines.join('\r\n')}\r\n`;
}

function cell(value: string | number): string {
  const text = String(value);
  // A sheet takes a leading "=" or the like for a formula.
  const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
