/** Amounts as a scenario has them: "300ms", "1gbit", "10MiB". Milliseconds, bytes per second and bytes. */
import { parseDuration, parseRate, parseSize, UnitError } from '@vmferry/engine/quantities';
import { z } from 'zod';

const quantity = (parse: (text: string) => number, description: string, examples: string[]) =>
  z
    .string(`write it with its unit, as in ${examples.join(' or ')}`)
    .transform((text, context) => {
      try {
        return parse(text);
      } catch (error) {
        if (!(error instanceof UnitError)) throw error;
        context.addIssue({ code: 'custom', message: error.message });
        return z.NEVER;
      }
    })
    .meta({ description, examples });

export const duration = quantity(parseDuration, 'A duration: 300ms, 2s, 10m.', ['300ms', '10m']);
export const rate = quantity(parseRate, 'A rate: 1gbit, 100MB/s.', ['1gbit', '100MB/s']);
export const size = quantity(parseSize, 'A size: 64MiB, 1.5GB.', ['64MiB', '1.5GB']);
