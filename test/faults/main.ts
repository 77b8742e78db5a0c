/**
 * Migrations of a libvirt domain to each of which something happens at a random moment.
 *
 *     node test/dist/faults/main.js [--runs N] [--seed N] [--disks] [--only MOMENT]
 *
 * Exit status 1 when a domain was lost, ran twice, was damaged, or could not be finished.
 */
import { parseArgs } from 'node:util';
import { LibvirtLab } from './libvirt-lab.ts';
import { randomRuns } from './random.ts';
import { twoLibvirts } from './rig.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    disks: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});

const { libvirts, close } = await twoLibvirts();
// Domains outlive whoever started them.
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void close().finally(() => process.exit(130)));
}
const ends = { well: 0, deaf: 0, failed: 0 };
try {
  const boot = () => LibvirtLab.boot(libvirts, 'random', { disk: values.disks });
  const { disks: disk, only } = values;
  const runs = randomRuns(boot, { runs: Number(values.runs), seed: Number(values.seed), disk, only });
  for await (const { words, end } of runs) {
    console.log(words);
    ends[end] += 1;
  }
} finally {
  await close();
}
console.log(
  `${values.runs} runs (--seed ${values.seed}): ${ends.well} well, ${ends.failed} failed, ${ends.deaf} halted for good (docs/libvirt.md)`,
);
process.exit(ends.failed > 0 ? 1 : 0);
