/**
 * The simulator against what it models: guests are moved over shaped links, and the same moves are simulated.
 *
 *     node test/dist/bench/check-model.js [--rates 100mbit,200mbit] [--only precopy,hybrid,postcopy]
 *         [--compress lz4] [--json]
 *
 * What hosts take is measured first, by one move of a guest at rest over an unshaped link; the rest is the model's.
 * Rates are those at which the link is what counts, and the codec is a fixed one: hosts that have other things to do,
 * and a codec that tries out others, come to something else each time.
 *
 * Exit status 1 when a prediction is off by more than its bound: then the model is to be mended, not the bound.
 */
import { parseArgs } from 'node:util';
import type { ChosenStrategy } from '@vmferry/engine/options';
import { parseRate } from '@vmferry/engine/quantities';
import { type Calibration, calibrate } from '@vmferry/memsim/forecast/calibrate';
import { type CheckRow, checkPrediction } from '@vmferry/memsim/forecast/check';
import type { Simulation } from '@vmferry/memsim/simulator/model';
import { simulate } from '@vmferry/memsim/simulator/simulate';
import { type Compress, type ModelPeer, qemuPeer, simulatedPeer } from '../peers/model-peers.ts';

interface Row extends CheckRow {
  readonly peer: string;
  readonly strategy: string;
  readonly rate: string;
}

/** Two namespaces on one machine. */
const LATENCY_MS = 0.05;
const WINDOW_BYTES = 16 * 1024 * 1024;

const { values } = parseArgs({
  options: {
    rates: { type: 'string', default: '100mbit,200mbit' },
    only: { type: 'string', default: 'precopy,hybrid,postcopy' },
    compress: { type: 'string', default: 'lz4' },
    json: { type: 'boolean', default: false },
  },
});
const rates = values.rates.split(',');
const compress = values.compress as Compress;
const strategies = values.only.split(',') as ChosenStrategy[];
const peers = [simulatedPeer(), qemuPeer()].filter((peer) => peer !== undefined);

const rows: Row[] = [];
for (const peer of peers) {
  const calibration = calibrate(await peer.calibrationRun(compress));
  console.error(
    `${peer.name}: a page takes ${calibration.costs.sendPageUs.toFixed(1)} us, ${(calibration.left * 100).toFixed(0)} % of it goes over`,
  );
  for (const rate of rates)
    for (const strategy of strategies) await compare(peer, calibration, strategy, rate);
}
if (values.json) console.log(JSON.stringify({ rows }));
else {
  console.table(
    rows.map(({ peer, strategy, rate, figure, measured, predicted, off, bound, holds }) => ({
      peer,
      strategy,
      link: rate,
      figure,
      measured: Math.round(measured),
      predicted: Math.round(predicted),
      'off by': `${(off * 100).toFixed(1)} %`,
      'at most': bound,
      holds: holds ? 'holds' : 'FAILS',
    })),
  );
}
if (rows.length === 0) console.error('there is neither QEMU nor a simulated guest here: nothing was checked');
process.exitCode = rows.length > 0 && rows.every(({ holds }) => holds) ? 0 : 1;

async function compare(
  peer: ModelPeer,
  calibration: Calibration,
  strategy: ChosenStrategy,
  rate: string,
): Promise<void> {
  const measured = await peer.migrate(strategy, rate, compress);
  if (measured.outcome !== 'completed')
    throw new Error(`${peer.name} by ${strategy} at ${rate}: ${measured.error?.message}`);
  const { report } = simulate(simulationOf(peer, calibration, strategy, rate));
  for (const note of measured.notes) console.error(`  ${note}`);
  for (const row of checkPrediction(measured, report)) {
    rows.push({ peer: peer.name, strategy, rate, ...row });
    const words = `${row.figure} ${Math.round(row.measured)}, predicted ${Math.round(row.predicted)}`;
    console.error(`${peer.name} ${strategy} ${rate}: ${words} (${(row.off * 100).toFixed(1)} %)`);
  }
}

function simulationOf(
  peer: ModelPeer,
  calibration: Calibration,
  strategy: ChosenStrategy,
  rate: string,
): Simulation {
  return {
    guest: peer.guest(calibration),
    link: {
      initial: {
        bandwidth: parseRate(rate),
        latencyMs: LATENCY_MS,
        loss: 0,
        otherBytesPerSec: 0,
        otherStreams: 0,
      },
      changes: [],
      windowBytes: WINDOW_BYTES,
    },
    costs: calibration.costs,
    request: { strategy, maxDowntimeMs: 300, maxBandwidth: 0, streams: 1, compress },
    adaptiveRate: undefined,
    postcopy: { channel: 'express', prepaging: 'around', queuedBytes: 0 },
    postcopyObstacle: undefined,
    seed: 1,
  };
}
