/** A part of a sweep, as it goes to a thread and comes back. */
import type { SweepRun } from '../scenario/parse.ts';
import { simulate } from '../simulator/simulate.ts';
import { courseOf, rowOf, type SweepCourse, type SweepRow } from './row.ts';

export interface Batch {
  /** Index of the first run in the sweep. */
  readonly first: number;
  readonly runs: readonly SweepRun[];
  /** Indices of the runs whose course is wanted. */
  readonly courses: readonly number[];
}

export interface BatchResult {
  readonly first: number;
  readonly rows: readonly SweepRow[];
  readonly courses: readonly SweepCourse[];
}

export function runBatch({ first, runs, courses }: Batch): BatchResult {
  const rows: SweepRow[] = [];
  const kept: SweepCourse[] = [];
  for (const [index, { axes, simulation }] of runs.entries()) {
    const result = simulate(simulation);
    rows.push(rowOf(axes, result));
    if (courses.includes(first + index)) kept.push(courseOf(first + index, result));
  }
  return { first, rows, courses: kept };
}
