/** What each strategy would come to for one guest on one link, and which to choose. */
import type { ChosenStrategy } from '@vmferry/engine/options';
import type { Simulation, SimulationResult } from '../simulator/model.ts';
import { simulate } from '../simulator/simulate.ts';

export interface Forecast {
  readonly strategy: ChosenStrategy;
  readonly result: SimulationResult;
  /** Why it is out of the question; undefined if it meets all goals. */
  readonly obstacle: string | undefined;
}

export interface Recommendation {
  readonly strategy: ChosenStrategy;
  readonly why: string;
}

/** In order of preference: what fails in pre-copy fails on the source, and faults are felt by the guest. */
const STRATEGIES: readonly ChosenStrategy[] = ['precopy', 'hybrid', 'postcopy'];
/** A strategy that takes this many times as long as another is not preferred any more. */
const MUCH_LONGER = 3;
/** Faults that wait for less than this in all are as good as none, in milliseconds. */
const LITTLE_WAIT_MS = 1000;

export function forecasts(simulation: Simulation): readonly Forecast[] {
  return STRATEGIES.map((strategy) => {
    const result = simulate({ ...simulation, request: { ...simulation.request, strategy } });
    return { strategy, result, obstacle: obstacleOf(simulation, result) };
  });
}

/** @param all what `forecasts` gave */
export function recommend(all: readonly Forecast[]): Recommendation {
  const possible = all.filter(({ obstacle }) => obstacle === undefined);
  const completed = all.filter(({ result }) => result.report.outcome === 'completed');
  if (possible.length === 0) {
    const best = completed.toSorted((a, b) => pauseOf(a) - pauseOf(b))[0];
    if (best === undefined)
      return {
        strategy: 'precopy',
        why: 'None would complete; a failed pre-copy leaves the guest where it is.',
      };
    return { strategy: best.strategy, why: `None meets all goals: ${best.obstacle}. It comes closest.` };
  }
  const fastest = Math.min(...possible.map(({ result }) => result.report.totalMs));
  const inTime = possible.filter(({ result }) => result.report.totalMs <= fastest * MUCH_LONGER);
  const chosen = inTime[0]!;
  switch (chosen.strategy) {
    case 'precopy':
      return {
        strategy: 'precopy',
        why: 'It meets the goals, and until the guest stops any failure leaves it running on the source.',
      };
    case 'hybrid':
      return {
        strategy: 'hybrid',
        why: `${whyNot(all, 'precopy', fastest)} Rounds first leave fewer faults.`,
      };
    case 'postcopy':
      return {
        strategy: 'postcopy',
        why: `${whyNot(all, 'precopy', fastest)} ${whyNot(all, 'hybrid', fastest)}`.trim(),
      };
  }
}

function whyNot(all: readonly Forecast[], strategy: ChosenStrategy, fastestMs: number): string {
  const forecast = all.find((each) => each.strategy === strategy);
  if (forecast === undefined) return '';
  const { obstacle, result } = forecast;
  if (obstacle !== undefined) return `${strategy}: ${obstacle}.`;
  return `${strategy} would take ${(result.report.totalMs / fastestMs).toFixed(1)} times as long.`;
}

function obstacleOf({ request }: Simulation, { report, decisions }: SimulationResult): string | undefined {
  if (report.outcome !== 'completed') {
    if (report.error?.code === 'E_STALLED') return 'its rounds do not converge';
    return report.error ? report.error.message.replace(/\.$/, '') : report.outcome;
  }
  if (report.downtimeMs > request.maxDowntimeMs)
    return `its downtime of ${Math.round(report.downtimeMs)} ms is more than ${request.maxDowntimeMs} ms`;
  if (request.deadlineMs !== undefined && report.totalMs > request.deadlineMs)
    return `it takes ${Math.round(report.totalMs / 1000)} s, longer than the deadline`;
  if (decisions.some(({ what }) => what.startsWith('throttle')))
    return "it is over only because the guest's CPUs are throttled";
  return undefined;
}

/** The guest's standing still, and what its vCPUs wait for pages. */
function pauseOf({ result }: Forecast): number {
  const { faults, meanWaitMs } = result.postcopy ?? { faults: 0, meanWaitMs: 0 };
  return result.report.downtimeMs + Math.max(0, faults * meanWaitMs - LITTLE_WAIT_MS);
}
