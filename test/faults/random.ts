/** A seeded row of migrations, each with a fault at a random moment. */
import { draw, hash } from '@vmferry/memsim/random';
import { type Cell, cellName, play } from './cells.ts';
import { DeafQemuError, type Fault, faults, type LibvirtLab } from './libvirt-lab.ts';
import { type Moment, moments } from './moments.ts';

/** A moment is followed by the fault within so long, ms. */
const SPREAD_MS = 400;
/** Of a row of moments: from the first page to the last. */
const LONG_MS: Partial<Record<Moment, number>> = { 'resume, pages travel': 6000 };
/** A libvirtd that is stopped goes on within so long, ms. */
const STOPPED_MS = 8000;
/** The process stands still at these: only what ends it can be a fault. */
const ENDS: Partial<Record<Moment, readonly Fault[]>> = {
  committing: ['kill source', 'kill both'],
  committed: ['kill source', 'kill both'],
};

export interface RandomRuns {
  readonly runs: number;
  readonly seed: number;
  readonly disk: boolean;
  /** What the names of the moments begin with. Default: all. */
  readonly only?: string;
}

export interface RandomRun {
  /** `deaf`: it is halted for good, which only an emulated CPU can be. */
  readonly end: 'well' | 'deaf' | 'failed';
  /** A line that tells it. */
  readonly words: string;
}

function randomCell({ seed, disk, only = '' }: RandomRuns, run: number): Cell {
  const key = hash(seed, run);
  const pick = <T>(of: readonly T[], n: number): T => of[Math.floor(draw(key, n) * of.length)]!;
  const moment = pick(
    moments.filter((each) => each.startsWith(only) && (disk || each !== 'disks')),
    0,
  );
  return {
    moment,
    fault: pick(ENDS[moment] ?? faults, 1),
    afterMs: Math.round(draw(key, 2) * (LONG_MS[moment] ?? SPREAD_MS)),
    stoppedMs: Math.round(draw(key, 3) * STOPPED_MS),
  };
}

/** One domain goes to and fro for all of them; one that came to harm is given up, and another takes its place. */
export async function* randomRuns(
  boot: () => Promise<LibvirtLab>,
  options: RandomRuns,
): AsyncIterable<RandomRun> {
  let lab: LibvirtLab | undefined;
  try {
    for (let run = 0; run < options.runs; run += 1) {
      lab ??= await boot();
      const cell = randomCell(options, run);
      const began = performance.now();
      const took = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
      const named = `${run} ${cellName(cell)}`;
      try {
        const { report, runsOn, by } = await play(lab, cell);
        const outcome = report ? `${report.outcome} ${report.error?.code ?? ''}`.trim() : 'killed';
        const finished = by.length > 0 ? `, ${by.join('; ')}` : '';
        yield { end: 'well', words: `${named}: ${outcome}, runs on the ${runsOn}${finished} (${took()})` };
      } catch (error) {
        const end = error instanceof DeafQemuError ? 'deaf' : 'failed';
        yield { end, words: `${named}: ${end.toUpperCase()} (${took()}) ${(error as Error).stack}` };
        await lab.close();
        lab = undefined;
      }
    }
  } finally {
    await lab?.close();
  }
}
