import { StreamError } from './error.ts';
import type { Intake } from './intake.ts';

/** `more`: another piece, of the new `need`. `done`: the record is over. Else it is not understood, and why. */
export type PieceOutcome = 'more' | 'done' | { readonly verbatim: string };

/** Reads a record of which every byte is opaque too, piece by piece. */
export interface PieceReader {
  /** Bytes of the next piece. */
  readonly need: number;
  /** What the record is, for messages. */
  readonly what: string;
  /** Reads the piece last taken from `input`. */
  read(input: Intake): PieceOutcome;
}

/** Checks the length byte of a name. */
export function nameLength(length: number): number {
  if (length === 0) throw new StreamError('The stream has a name without letters.');
  return length;
}
