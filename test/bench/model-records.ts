/** Measured migrations that predictions are held against: made on the rig, kept in a file, read again. */
import { readFile, writeFile } from 'node:fs/promises';
import type { ChosenStrategy } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { CalibrationRuns } from '@vmferry/memsim/forecast/calibrate';
import type { Compress, GuestSize, ModelPeer } from '../peers/model-peers.ts';

export interface MeasuredMove {
  readonly strategy: ChosenStrategy;
  readonly rate: string;
  /** One for each time that it was made. */
  readonly reports: readonly MigrationReport[];
}

export interface MeasuredPeer {
  readonly peer: string;
  /** Of a guest at rest over an unshaped link. */
  readonly calibration: CalibrationRuns;
  readonly moves: readonly MeasuredMove[];
}

export interface Measurements {
  readonly guest: GuestSize;
  readonly compress: Compress;
  readonly peers: readonly MeasuredPeer[];
}

export interface MeasurePlan {
  readonly strategies: readonly ChosenStrategy[];
  readonly rates: readonly string[];
  readonly runs: number;
  readonly compress: Compress;
}

/** Runs of each strategy: several, because hosts are not as fast each time. */
const CALIBRATIONS = { precopy: 3, postcopy: 3 };

/** @throws Error when a migration does not complete */
export async function measure(peer: ModelPeer, plan: MeasurePlan): Promise<MeasuredPeer> {
  const calibrated = (strategy: keyof typeof CALIBRATIONS): Promise<MigrationReport[]> =>
    times(CALIBRATIONS[strategy], () => peer.calibrationRun(strategy, plan.compress));
  const calibration = {
    precopy: await calibrated('precopy'),
    postcopy: await calibrated('postcopy'),
  };
  const moves: MeasuredMove[] = [];
  for (const rate of plan.rates) {
    for (const strategy of plan.strategies) {
      const reports = await times(plan.runs, () => moved(peer, strategy, rate, plan.compress));
      moves.push({ strategy, rate, reports });
      const figures = reports.map((each) => `${Math.round(each.totalMs)}/${Math.round(each.downtimeMs)} ms`);
      console.error(`${peer.name} ${strategy} ${rate}: ${figures.join(', ')}`);
    }
  }
  return { peer: peer.name, calibration, moves };
}

export async function readMeasurements(path: string): Promise<Measurements> {
  return JSON.parse(await readFile(path, 'utf8')) as Measurements;
}

export async function writeMeasurements(path: string, measurements: Measurements): Promise<void> {
  await writeFile(path, `${JSON.stringify(measurements)}\n`);
}

async function moved(
  peer: ModelPeer,
  strategy: ChosenStrategy,
  rate: string,
  compress: Compress,
): Promise<MigrationReport> {
  const report = await peer.migrate(strategy, rate, compress);
  if (report.outcome !== 'completed')
    throw new Error(`${peer.name} by ${strategy} at ${rate}: ${report.error?.message}`);
  for (const note of report.notes) console.error(`  ${note}`);
  return report;
}

async function times<T>(count: number, work: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let time = 0; time < count; time += 1) results.push(await work());
  return results;
}
