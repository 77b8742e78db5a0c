/** Amounts as a scenario has them: "300ms", "1gbit", "10MiB". Milliseconds, bytes per second and bytes. */
import { parseDuration, parseRate, parseSize } from '@vmferry/engine/quantities';
import { z } from 'zod';
import { amountOf, BYTES, SIZES, written } from '../written.ts';

const quantity = (
  parse: (text: string) => number,
  description: string,
  examples: string[],
  pattern: string,
) =>
  z
    .string(`write it with its unit, as in ${examples.join(' or ')}`)
    .meta({ pattern })
    .transform((text, context) => amountOf(parse, text, context))
    .meta({ description, examples });

export const duration = quantity(
  parseDuration,
  'A duration: 300ms, 2s, 10m.',
  ['300ms', '10m'],
  written('(?:[mM]?[sS]|[mM]|[mM][iI][nN]|[hH]|[dD])'),
);
export const rate = quantity(
  parseRate,
  'A rate: 1gbit, 100MB/s.',
  ['1gbit', '100MB/s'],
  written(`(?:(?:${BYTES}|[kKmMgGtT]?[bB][iI][tT])(?:/[sS])?)?`),
);
export const size = quantity(
  parseSize,
  'A size: 64MiB or 64M (powers of 1024), 512MB (powers of 1000).',
  ['64MiB', '512MB'],
  written(`(?:${SIZES})?`),
);
