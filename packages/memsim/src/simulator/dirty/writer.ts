/**
 * What a workload does to memory, as functions of its own time: which share of each cell is still untouched after an
 * interval, and where accesses go.
 */
import type { AccessRates } from './access-rates.ts';
import { type Cells, stretchAt } from './cells.ts';
import type { Region } from './regions.ts';

/** A walk through memory at a moment. */
export interface Walk {
  readonly region: Region;
  /** Where it is, as a page of the region. */
  readonly at: number;
  /** Pages that it passes a second, and the share of them that it touches. */
  readonly pagesPerSec: number;
  readonly touched: number;
}

/**
 * Time for which accesses are told as if they were the same all along: phases are as at `at`, which lies within, what
 * moves is everywhere that it comes to from `from` up to `to`, and walks are where they are at `from`.
 */
export interface Span {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

export function moment(t: number): Span {
  return { from: t, to: t, at: t };
}

/** All times are the workload's own, in seconds since it began. */
export interface Writer {
  /** Multiplies each cell's share by the share that is not written from `a` up to `b`. */
  spare(a: number, b: number, untouched: Float64Array): void;
  /** Adds the accesses a second, reads and writes, that go to each cell at random. */
  access(span: Span, rates: AccessRates): void;
  /** Adds the walks that go on. */
  walks(span: Span, into: Walk[]): void;
  /** When `access` and which walks there are change next, after `t`; infinite if they do not. */
  nextChange(t: number): number;
  /** Which phases there are at `t`: times of the same name differ only in where things are. */
  turn(t: number): string;
}

export const NEVER = () => Number.POSITIVE_INFINITY;
export const NOTHING = () => {};
export const NO_TURN = () => '';

/** Indices of the stretches in a region, first and end. */
export function stretchesOf(cells: Cells, region: Region): readonly [number, number] {
  if (region.pages <= 0) return [0, 0];
  return [stretchAt(cells, region.first), stretchAt(cells, region.first + region.pages - 1) + 1];
}
