/** How amounts are written in files: the same in guests, scenarios and on the command line. */
import { UnitError } from '@vmferry/engine/quantities';
import { z } from 'zod';

/** For editors. Bytes; the parsers (`engine/quantities`) have the last word. */
export const BYTES = '(?:[kKmMgGtT][iI]?)?[bB]';

/** The same of sizes, which may also have QEMU's units. */
export const SIZES = `(?:[kKmMgGtT]|${BYTES})`;

/** A number and its unit. */
export const written = (unit: string): string => String.raw`^\s*(?:\d+(?:\.\d+)?|\.\d+)\s*${unit}\s*$`;

/** What `parse` makes of it; what it cannot make out is an issue of the document. */
export function amountOf(
  parse: (text: string) => number,
  text: string,
  context: z.core.$RefinementCtx,
): number {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    context.addIssue({ code: 'custom', message: error.message });
    return z.NEVER;
  }
}
