/** All runs of a sweep, on all cores. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SweepRun } from '../scenario/parse.ts';
import { type Batch, type BatchResult, runBatch } from './batch.ts';
import type { SweepCourse, SweepRow } from './row.ts';

/** Fewer are simulated before threads have started. */
const FEW_RUNS = 64;
const BATCH_RUNS = 25;
/** More of them only take memory. */
const MOST_THREADS_A_CORE = 4;
/** Cases (guest, size and link) whose courses are kept: a page with more cannot be handled. */
export const MOST_CASES = 40;

/** From the sources as from `dist`: Node runs no TypeScript. */
const THREAD = new URL('../../dist/sweep/worker.js', import.meta.url);

export interface SweepResult {
  /** In the order of the runs. */
  readonly rows: readonly SweepRow[];
  readonly courses: readonly SweepCourse[];
}

export interface SweepOptions {
  /** Default: one for each core; at most four times as many. */
  readonly threads?: number;
  readonly onProgress?: (done: number) => void;
}

/** Rejects with what a thread failed of. */
export async function runSweep(runs: readonly SweepRun[], options: SweepOptions = {}): Promise<SweepResult> {
  const courses = new Set(wantedCourses(runs));
  const batches: Batch[] = [];
  for (let first = 0; first < runs.length; first += BATCH_RUNS) {
    const part = runs.slice(first, first + BATCH_RUNS);
    const wanted = part.flatMap((_, index) => (courses.has(first + index) ? [first + index] : []));
    batches.push({ first, runs: part, courses: wanted });
  }
  const cores = availableParallelism();
  const threads = Math.min(options.threads ?? cores, MOST_THREADS_A_CORE * cores, batches.length);
  const results =
    runs.length < FEW_RUNS || threads < 2
      ? batches.map(runBatch)
      : await onThreads(batches, threads, options.onProgress);
  results.sort((a, b) => a.first - b.first);
  return {
    rows: results.flatMap(({ rows }) => rows),
    courses: results.flatMap((result) => result.courses),
  };
}

/** All strategies of as many cases as a page takes, spread evenly. */
function wantedCourses(runs: readonly SweepRun[]): number[] {
  const cases = new Map<string, number[]>();
  for (const [index, { axes }] of runs.entries()) {
    const key = JSON.stringify([axes.guest, axes.memoryBytes, axes.link]);
    cases.set(key, [...(cases.get(key) ?? []), index]);
  }
  const every = Math.max(1, Math.ceil(cases.size / MOST_CASES));
  return [...cases.values()].filter((_, index) => index % every === 0).flat();
}

async function onThreads(
  batches: readonly Batch[],
  threads: number,
  onProgress: SweepOptions['onProgress'],
): Promise<BatchResult[]> {
  const results: BatchResult[] = [];
  let next = 0;
  let done = 0;
  const workers = Array.from({ length: threads }, () => new Worker(THREAD, { execArgv: [] }));
  try {
    await Promise.all(
      workers.map(
        (worker) =>
          new Promise<void>((resolve, reject) => {
            const give = (): void => {
              const batch = batches[next];
              next += 1;
              if (batch === undefined) resolve();
              else worker.postMessage(batch);
            };
            worker.on('message', (result: BatchResult) => {
              results.push(result);
              done += result.rows.length;
              onProgress?.(done);
              give();
            });
            worker.on('error', reject);
            worker.on('exit', (code) => {
              if (code !== 0) reject(new Error(`a thread of the sweep ended with ${code}`));
            });
            give();
          }),
      ),
    );
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  return results;
}
