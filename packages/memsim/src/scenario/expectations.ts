/** What a scenario expects, held against what came of it. */
import type { SimulationResult } from '../simulator/model.ts';
import type { FigureName, ScenarioFile } from './schema.ts';

export interface Comparison {
  readonly figure: FigureName;
  readonly expected: number;
  readonly simulated: number;
  /** Off by this share of what was expected, with its sign; 0 within a bound. */
  readonly off: number;
  readonly within: number;
  readonly holds: boolean;
}

export function compare(expected: ScenarioFile['expect'], result: SimulationResult): Comparison[] {
  return expected.map(({ figure, value, within, atMost }) => {
    const simulated = figureOf(figure, result);
    const beyond = atMost ? Math.max(0, simulated - value) : simulated - value;
    const off = value === 0 ? beyond : beyond / value;
    return { figure, expected: value, simulated, off, within, holds: Math.abs(off) <= within };
  });
}

function figureOf(figure: FigureName, { report, finalBytes, postcopy }: SimulationResult): number {
  switch (figure) {
    case 'totalMs':
    case 'downtimeMs':
    case 'wireBytes':
      return report[figure];
    case 'finalBytes':
      return finalBytes;
    case 'firstRoundMs':
      return report.rounds[0]?.durationMs ?? Number.NaN;
    case 'laterMs':
      return report.totalMs - (report.rounds[0]?.durationMs ?? Number.NaN);
    case 'faultShare':
      return postcopy ? postcopy.faults / Math.max(1, postcopy.touchedPages) : Number.NaN;
    case 'pagesTwice':
      return postcopy ? Math.max(0, Math.round(postcopy.sentPages - postcopy.missingPages)) : Number.NaN;
    case 'faultWaitMs':
      return postcopy?.meanWaitMs ?? Number.NaN;
  }
}
