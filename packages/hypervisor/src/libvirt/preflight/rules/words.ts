const UNITS = [
  [1024 ** 4, 'TiB'],
  [1024 ** 3, 'GiB'],
  [1024 ** 2, 'MiB'],
  [1024, 'KiB'],
] as const;

/** "1.5 GiB" */
export function inUnits(size: number): string {
  const [factor, unit] = UNITS.find(([least]) => size >= least) ?? [1, 'bytes'];
  return `${Number((size / factor).toFixed(1))} ${unit}`;
}

/** 7002022 is "7.2.22". */
export function versionText(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`;
}
