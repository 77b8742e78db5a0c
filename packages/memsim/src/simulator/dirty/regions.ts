/** A workload as the simulator takes it: that of guest files, with the content of traces read. */
import type { SimpleWorkload, Workload as WorkloadInFile } from '../../guest-file/schema.ts';
import type { Trace } from '../../workload/trace.ts';

export interface Region {
  readonly first: number;
  readonly pages: number;
}

/** Without brands: a model has parts of pages. */
type Plain<T> = T extends string ? T : T extends number ? number : { readonly [K in keyof T]: Plain<T[K]> };

export type Workload =
  | Plain<Exclude<SimpleWorkload, { kind: 'trace' }>>
  | { readonly kind: 'trace'; readonly trace: Trace }
  /** Reads one page after the other, over and over. */
  | { readonly kind: 'scan'; readonly readsPerSec: number; readonly region?: Region | undefined }
  | { readonly kind: 'phases'; readonly phases: readonly Phase[] }
  | { readonly kind: 'mix'; readonly parts: readonly Workload[] };

export interface Phase {
  readonly seconds: number;
  readonly workload: Workload;
}

/** @param trace gives the content of a trace's file */
export function resolveWorkload(workload: WorkloadInFile, trace: (file: string) => Trace): Workload {
  switch (workload.kind) {
    case 'trace':
      return { kind: 'trace', trace: trace(workload.file) };
    case 'phases':
      return {
        kind: 'phases',
        phases: workload.phases.map((phase) => ({
          seconds: phase.seconds,
          workload: resolveWorkload(phase.workload, trace),
        })),
      };
    case 'mix':
      return { kind: 'mix', parts: workload.parts.map((part) => resolveWorkload(part, trace)) };
    default:
      return workload;
  }
}

/** The same, but what it only reads it writes: what it dirties then is all that it touches. */
export function readsAsWrites(workload: Workload): Workload {
  switch (workload.kind) {
    case 'read-mostly': {
      const { pagesPerSec, readsPerSec, region } = workload;
      return { kind: 'uniform', pagesPerSec: pagesPerSec + readsPerSec, region };
    }
    case 'scan':
      return { kind: 'sequential', pagesPerSec: workload.readsPerSec, region: workload.region };
    case 'trace': {
      const { reads, writes } = workload.trace;
      const part = (of: Trace['reads']): Workload => ({ kind: 'trace', trace: { reads: of, writes: of } });
      return { kind: 'mix', parts: [part(writes), part(reads)] };
    }
    case 'phases':
      return {
        kind: 'phases',
        phases: workload.phases.map(({ seconds, workload: inner }) => ({
          seconds,
          workload: readsAsWrites(inner),
        })),
      };
    case 'mix':
      return { kind: 'mix', parts: workload.parts.map(readsAsWrites) };
    default:
      return workload;
  }
}

export function regionOf(workload: Extract<Workload, { region?: unknown }>, memoryPages: number): Region {
  return workload.region ?? { first: 0, pages: memoryPages };
}
