/**
 * Amounts as a guest file has them. Sizes are those of scenarios and of the command: 512MiB and 512M are
 * 512 * 1024², 512MB is 512 * 1000². Amounts of pages may be written as sizes, and rates of pages as sizes a second.
 */
import { parseRate, parseSize } from '@vmferry/engine/quantities';
import { type Bytes, bytes, PAGE_BYTES, type Pages, pages } from '@vmferry/engine/units';
import { z } from 'zod';
import { amountOf, BYTES, SIZES, written } from '../written.ts';

const SIZE = new RegExp(written(SIZES));
const RATE = new RegExp(written(`${BYTES}/[sS]`));

const MIN_MEMORY = 1024 ** 2;
const MAX_MEMORY = 1024 ** 4;
const MAX_PAGES = MAX_MEMORY / PAGE_BYTES;
const MAX_PAGES_PER_SEC = 100_000_000;
const SIZE_NEEDED = 'write a size, as in 512MiB or 512M (powers of 1024) or 512MB (powers of 1000)';

/** What is wrong with a size in bytes that is not whole pages, and what to write instead. */
function partOfPage(size: number): string | undefined {
  if (size % PAGE_BYTES === 0) return undefined;
  const below = Math.floor(size / PAGE_BYTES) * 4;
  const near = below === 0 ? '4KiB' : `${below}KiB or ${below + 4}KiB`;
  return `${size} bytes are no whole pages of ${PAGE_BYTES}: write ${near}`;
}

/** "512MiB", "16GiB": bytes, 1MiB to 1TiB and whole pages. */
export const memorySize = z
  .string(SIZE_NEEDED)
  .regex(SIZE, SIZE_NEEDED)
  .transform((text, context): Bytes => bytes(amountOf(parseSize, text, context)))
  .refine((size) => size >= MIN_MEMORY && size <= MAX_MEMORY, 'memory is 1MiB to 1TiB')
  .superRefine(wholePages)
  .meta({ description: 'Guest memory: 512MiB, 16GiB. 1MiB to 1TiB.', examples: ['512MiB', '16GiB'] });

/** A page's number. */
export const pageNumber = z
  .int()
  .min(0)
  .max(MAX_PAGES - 1)
  .transform((n): Pages => pages(n));

/** A number of pages, 1 or more, or a size ("64MiB"). */
export const pageCount = z
  .union(
    [
      // The bounds are checked behind the union, which would hide what they say.
      z
        .int()
        .transform((count) => count * PAGE_BYTES)
        .meta({ minimum: 1, maximum: MAX_PAGES }),
      z
        .string()
        .regex(SIZE)
        .transform((text, context) => amountOf(parseSize, text, context)),
    ],
    { error: 'write a number of pages, 1 or more, or a size, as in 64MiB' },
  )
  .superRefine(wholePages)
  .transform((size) => size / PAGE_BYTES)
  .refine((n) => n >= 1 && n <= MAX_PAGES, 'at least one page, and at most 1TiB')
  .transform((n): Pages => pages(n))
  .meta({ description: 'A number of pages of 4096 bytes, or a size: 64MiB.' });

/** Pages a second over all vCPUs, or bytes a second ("20MB/s"). */
export const pageRate = z
  .union(
    [
      z.number().meta({ exclusiveMinimum: 0, maximum: MAX_PAGES_PER_SEC }),
      z
        .string()
        .regex(RATE)
        .transform((text, context) => amountOf(parseRate, text, context) / PAGE_BYTES),
    ],
    { error: 'write a rate above 0 in pages a second, as in 5000, or in bytes a second, as in 20MB/s' },
  )
  .refine(
    (n) => n > 0 && n <= MAX_PAGES_PER_SEC,
    `a rate is more than 0 and at most ${MAX_PAGES_PER_SEC} pages a second`,
  )
  .meta({ description: 'Pages a second over all vCPUs, or a size a second: 20MB/s.' });

/** A duration in seconds. */
export const duration = z
  .number({ error: 'write a number of seconds' })
  .min(0.001, 'at least 0.001 s')
  .max(86_400, 'at most 86400 s')
  .meta({ description: 'Seconds.' });

export function wholePages(size: number, context: z.core.$RefinementCtx): void {
  const message = partOfPage(size);
  if (message !== undefined) context.addIssue({ code: 'custom', message });
}
