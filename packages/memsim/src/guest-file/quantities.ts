/**
 * Amounts as a guest file has them. Sizes are powers of 1024, as QEMU's `-m` reads them: 512M is 512 MiB.
 * Amounts of pages may be written as sizes, and rates of pages as sizes a second.
 */
import { type Bytes, bytes, PAGE_BYTES, type Pages, pages } from '@vmferry/engine/units';
import { z } from 'zod';

const SIZE = /^(\d+(?:\.\d+)?) ?([KMGT])(?:iB|B)?$/;
const RATE = /^(\d+(?:\.\d+)?) ?([KMGT])(?:iB|B)?\/s$/;
const FACTORS: Readonly<Record<string, number>> = {
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

const MIN_MEMORY = 1024 ** 2;
const MAX_MEMORY = 1024 ** 4;
const MAX_PAGES = MAX_MEMORY / PAGE_BYTES;
const MAX_PAGES_PER_SEC = 100_000_000;

/** "512M", "16G": bytes, 1M to 1T and whole pages. */
export const memorySize = z
  .string('write a size, as in 512M or 16G')
  .regex(SIZE, 'write a size, as in 512M or 16G')
  .transform((text): Bytes => bytes(amount(SIZE, text)))
  .refine((size) => size >= MIN_MEMORY && size <= MAX_MEMORY, 'memory is 1M to 1T')
  .refine((size) => size % PAGE_BYTES === 0, `memory is a multiple of ${PAGE_BYTES} bytes`)
  .meta({ description: 'Guest memory: 512M, 16G. 1M to 1T, powers of 1024.', examples: ['512M', '16G'] });

/** A page's number. */
export const pageNumber = z
  .int()
  .min(0)
  .max(MAX_PAGES - 1)
  .transform((n): Pages => pages(n));

/** A number of pages, 1 or more, or a size ("64M"). */
export const pageCount = z
  .union(
    [
      // The bounds are checked behind the union, which would hide what they say.
      z.int().meta({ minimum: 1, maximum: MAX_PAGES }),
      z
        .string()
        .regex(SIZE)
        .transform((text) => Math.round(amount(SIZE, text) / PAGE_BYTES)),
    ],
    { error: 'write a number of pages, 1 or more, or a size, as in 64M' },
  )
  .refine((n) => n >= 1 && n <= MAX_PAGES, 'at least one page, and at most 1T')
  .transform((n): Pages => pages(n))
  .meta({ description: 'A number of pages of 4096 bytes, or a size: 64M.' });

/** Pages a second over all vCPUs, or bytes a second ("20M/s"). */
export const pageRate = z
  .union(
    [
      z.number().meta({ exclusiveMinimum: 0, maximum: MAX_PAGES_PER_SEC }),
      z
        .string()
        .regex(RATE)
        .transform((text) => amount(RATE, text) / PAGE_BYTES),
    ],
    { error: 'write a rate above 0 in pages a second, as in 5000, or in bytes a second, as in 20M/s' },
  )
  .refine(
    (n) => n > 0 && n <= MAX_PAGES_PER_SEC,
    `a rate is more than 0 and at most ${MAX_PAGES_PER_SEC} pages a second`,
  )
  .meta({ description: 'Pages a second over all vCPUs, or a size a second: 20M/s.' });

/** A duration in seconds. */
export const duration = z
  .number({ error: 'write a number of seconds' })
  .min(0.001, 'at least 0.001 s')
  .max(86_400, 'at most 86400 s')
  .meta({ description: 'Seconds.' });

function amount(form: RegExp, text: string): number {
  const [, number = '', unit = ''] = form.exec(text) ?? [];
  return Number(number) * (FACTORS[unit] ?? Number.NaN);
}
