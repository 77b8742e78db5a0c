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

export function regionOf(workload: Extract<Workload, { region?: unknown }>, memoryPages: number): Region {
  return workload.region ?? { first: 0, pages: memoryPages };
}
