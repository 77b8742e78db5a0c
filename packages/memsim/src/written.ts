/** How amounts are written in files, for editors: the same in guests, scenarios and on the command line. */

/** Bytes; the parsers (`engine/quantities`) have the last word. */
export const BYTES = '(?:[kKmMgGtT][iI]?)?[bB]';

/** A number and its unit. */
export const written = (unit: string): string => String.raw`^\s*(?:\d+(?:\.\d+)?|\.\d+)\s*${unit}\s*$`;
