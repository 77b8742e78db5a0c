/** Parsers of option values. Commander adds the option's name to what they complain of. */
import { messageOf } from '@vmferry/engine/errors';
import { parseDuration, parseRate, UnitError } from '@vmferry/engine/quantities';
import { parseAddress } from '@vmferry/wire/address';
import { InvalidArgumentError } from 'commander';

/** Milliseconds. */
export const duration = (text: string): number => complaining(() => parseDuration(text));

/** Bytes per second. */
export const rate = (text: string): number => complaining(() => parseRate(text));

export function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Write a whole number, as in 4.');
  return Number(text);
}

export function agentUrl(text: string): string {
  try {
    parseAddress(text);
    return text;
  } catch (error) {
    const why = messageOf(error);
    throw new InvalidArgumentError(
      `${why}. Write it as wss://host2:4447, ws://127.0.0.1:4446 or ws+unix:/PATH.`,
    );
  }
}

/** For options that may be given several times. */
export const collected = (text: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  text,
];

function complaining<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof UnitError) throw new InvalidArgumentError(`${error.message}.`);
    throw error;
  }
}
