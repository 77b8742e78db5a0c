/** A prediction held against what was measured: the bounds that the model must keep. */

export interface Figures {
  readonly totalMs: number;
  readonly wireBytes: number;
  readonly downtimeMs: number;
}

export interface CheckRow {
  readonly figure: keyof Figures;
  readonly measured: number;
  readonly predicted: number;
  /** By how much of what was measured the prediction is off, with its sign. */
  readonly off: number;
  readonly bound: string;
  readonly holds: boolean;
}

/** Of total time and of bytes. */
const SHARE = 0.15;
/** Of downtime: this share, or so many milliseconds, whichever is more. */
const DOWNTIME_SHARE = 0.3;
const DOWNTIME_MS = 20;

export function checkPrediction(measured: Figures, predicted: Figures): readonly CheckRow[] {
  const row = (figure: keyof Figures, share: number, least: number, bound: string): CheckRow => {
    const difference = predicted[figure] - measured[figure];
    return {
      figure,
      measured: measured[figure],
      predicted: predicted[figure],
      off: difference / measured[figure],
      bound,
      holds: Math.abs(difference) <= Math.max(measured[figure] * share, least),
    };
  };
  return [
    row('totalMs', SHARE, 0, '15 %'),
    row('wireBytes', SHARE, 0, '15 %'),
    row('downtimeMs', DOWNTIME_SHARE, DOWNTIME_MS, '30 % or 20 ms'),
  ];
}
