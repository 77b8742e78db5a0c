// How long simulations take: a guest of 64 GiB by every strategy, and a sweep of 10 000 runs on all cores.
//
//     node packages/memsim/bench/simulate.mjs [--sweep]
import { parseSweep } from '../dist/scenario/parse.js';
import { simulate } from '../dist/simulator/simulate.js';
import { runSweep } from '../dist/sweep/run-sweep.js';

const GUESTS = [
  'idle',
  'web',
  'database',
  'cache',
  'builder',
  'batch',
  'memory-hog',
  'moving',
  'bursty',
  'huge',
];
const nothing = () => {
  throw new Error('nothing beside it');
};
const parse = (text) => parseSweep(text, 'bench', { guestFile: nothing, trace: nothing }).runs;

const big = parse(`guests: [${GUESTS}]\nsizes: [64GiB]\nlinks: { lan: { bandwidth: 10gbit } }\n`);
for (const { simulation } of big) simulate(simulation);
const rows = big.map(({ axes, simulation }) => {
  const began = performance.now();
  simulate(simulation);
  return { guest: axes.guest, strategy: axes.strategy, ms: Number((performance.now() - began).toFixed(1)) };
});
console.log('a guest of 64 GiB on 10 Gbit/s');
console.table(rows);
console.log(`the longest took ${Math.max(...rows.map(({ ms }) => ms))} ms (at most 50 is promised)`);

if (process.argv.includes('--sweep')) {
  const links = Array.from(
    { length: 50 },
    (_, index) =>
      `  l${index}: { bandwidth: ${Math.round(200 * 1.12 ** index)}mbit, latency: ${0.05 + index * 0.3}ms }`,
  );
  const runs = parse(
    `guests: [${GUESTS}]\nsizes: [2GiB, 4GiB, 16GiB, 32GiB, 64GiB]\nlinks:\n${links.join('\n')}\n`,
  );
  const began = performance.now();
  await runSweep(runs);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const mebibytes = Math.round(process.memoryUsage.rss() / 2 ** 20);
  console.log(
    `${runs.length} runs took ${seconds} s and ${mebibytes} MiB (at most 60 s are promised on two cores)`,
  );
}
