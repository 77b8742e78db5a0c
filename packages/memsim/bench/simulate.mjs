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
// What changes often is what costs: each change of where accesses go ends a step of post-copy.
const RESTLESS = {
  'moves every 0.1 s': {
    kind: 'moving',
    pagesPerSec: 50000,
    windowPages: 16384,
    everySeconds: 0.1,
    stepPages: 1024,
  },
  'moves every 10 ms': {
    kind: 'moving',
    pagesPerSec: 50000,
    windowPages: 16384,
    everySeconds: 0.01,
    stepPages: 512,
  },
  'short phases': {
    kind: 'phases',
    phases: [
      { seconds: 0.05, workload: { kind: 'uniform', pagesPerSec: 100000 } },
      { seconds: 0.05, workload: { kind: 'idle' } },
      { seconds: 0.05, workload: { kind: 'sequential', pagesPerSec: 100000 } },
    ],
  },
  'a mix of these': {
    kind: 'mix',
    parts: [
      { kind: 'moving', pagesPerSec: 20000, windowPages: 8192, everySeconds: 0.5, stepPages: 4096 },
      { kind: 'zipf', pagesPerSec: 50000, exponent: 1.1 },
      { kind: 'sequential', pagesPerSec: 50000 },
      { kind: 'fork-bursts', pagesPerSec: 100, burstPages: 2000, everySeconds: 0.5 },
      {
        kind: 'phases',
        phases: [
          { seconds: 0.1, workload: { kind: 'uniform', pagesPerSec: 100000 } },
          { seconds: 0.2, workload: { kind: 'idle' } },
        ],
      },
    ],
  },
};
const nothing = () => {
  throw new Error('nothing beside it');
};
const parse = (text) => parseSweep(text, 'bench', { guestFile: nothing, trace: nothing }).runs;

const measured = (title, runs) => {
  for (const { simulation } of runs) simulate(simulation);
  const rows = runs.map(({ axes, simulation }) => {
    const began = performance.now();
    simulate(simulation);
    return { guest: axes.guest, strategy: axes.strategy, ms: Number((performance.now() - began).toFixed(1)) };
  });
  console.log(title);
  console.table(rows);
  console.log(`the longest took ${Math.max(...rows.map(({ ms }) => ms))} ms (at most 50 is promised)`);
};

const on = (bandwidth, guests) =>
  parse(`guests: ${guests}\nsizes: [64GiB]\nlinks: { lan: { bandwidth: ${bandwidth} } }\n`);
measured('a guest of 64 GiB on 10 Gbit/s', on('10gbit', `[${GUESTS}]`));
const restless = Object.entries(RESTLESS).map(([name, workload]) => ({
  name: name.replaceAll(/\W+/g, '-'),
  memory: '64GiB',
  vcpus: 2,
  content: { zero: 0.3, text: 0.7 },
  workload,
}));
for (const bandwidth of ['10gbit', '1gbit'])
  measured(`what changes often, 64 GiB on ${bandwidth}`, on(bandwidth, JSON.stringify(restless)));

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
