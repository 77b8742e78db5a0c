/**
 * vmferry beside QEMU's own migration: the same guest, the same link, in the same run, one after the other.
 *
 *     node test/dist/bench/main.js [--runs N] [--rate 1gbit|none] [--only precopy,postcopy,hybrid] [--libvirt] [--json]
 *
 * `--libvirt`: between two libvirtds, by libvirt itself (peer-to-peer) and by vmferry.
 *
 * Exit status 1 when one of the claims does not hold.
 */
import { parseArgs } from 'node:util';
import { runLibvirtMigration } from '../peers/libvirt-migrations.ts';
import { type QemuMode, runQemuMigration } from '../peers/qemu-migration.ts';
import { runVmferryMigration } from '../peers/vmferry-migration.ts';

interface Row {
  readonly mode: string;
  readonly totalMs: number;
  readonly stopToResumeMs: number;
  readonly tcpGapMs: number;
  readonly udpGapMs: number;
  readonly megabytes: number;
  readonly peakMiB?: number;
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    rate: { type: 'string', default: '1gbit' },
    only: { type: 'string', default: 'precopy,postcopy,hybrid' },
    libvirt: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const link = values.rate === 'none' ? {} : { rate: values.rate };
const strategies = values.only.split(',') as ('precopy' | 'postcopy' | 'hybrid')[];
const own = values.libvirt ? 'libvirt' : 'qemu';
const peers = [
  ...new Set(strategies.map((s) => (s === 'precopy' ? ('precopy' as const) : ('postcopy' as const)))),
];

/** QEMU before 9.0 spoils some TCG guests in pre-copy (see rig/qemu.ts): a guest that panicked measures nothing. */
const TRIES = 4;

const rows: Row[] = [];
for (let run = 1; run <= runs; run += 1) {
  if (values.libvirt) {
    for (const by of ['libvirt', 'vmferry'] as const) {
      for (const strategy of peers) {
        const result = await runLibvirtMigration({ by, strategy, ...link });
        const { gapMs, udpGapMs, bytes, ...times } = result;
        add({
          mode: `${by} ${strategy}`,
          ...times,
          tcpGapMs: gapMs,
          udpGapMs,
          megabytes: bytes / 1e6,
        });
      }
    }
    continue;
  }
  for (const mode of peers) {
    const peer = await survived(mode);
    add({
      mode: `qemu ${mode}`,
      totalMs: peer.totalMs,
      stopToResumeMs: peer.stopToResumeMs,
      tcpGapMs: peer.gapMs,
      udpGapMs: peer.udpGapMs,
      megabytes: peer.bytes / 1e6,
    });
  }
  for (const strategy of strategies) {
    const ours = await runVmferryMigration({ strategy, ...link });
    add({
      mode: `vmferry ${strategy}`,
      totalMs: ours.totalMs,
      stopToResumeMs: ours.stopToResumeMs,
      tcpGapMs: ours.gapMs,
      udpGapMs: ours.udpGapMs,
      megabytes: ours.bytes / 1e6,
      peakMiB: Math.max(ours.sourcePeakBytes, ours.destPeakBytes) / 2 ** 20,
    });
    if (process.env['VMFERRY_BENCH_REPORT']) console.error(JSON.stringify(ours.report));
  }
}

const modes = [...new Set(rows.map((row) => row.mode))];
const medians = new Map(modes.map((mode) => [mode, medianRow(rows.filter((row) => row.mode === mode))]));
const claims = [
  claim(
    `total time of pre-copy against ${own}`,
    'vmferry precopy',
    `${own} precopy`,
    (row) => row.totalMs,
    0.7,
  ),
  claim(
    `client's gap in post-copy against ${own}`,
    'vmferry postcopy',
    `${own} postcopy`,
    (row) => row.udpGapMs,
    0.3,
  ),
  values.libvirt ? undefined : memoryClaim(256),
].filter((each) => each !== undefined);

if (values.json) console.log(JSON.stringify({ rows, claims }));
else {
  console.log(`\nmedians of ${runs} runs, link ${values.rate}`);
  console.table(
    [...medians].map(([mode, row]) => ({
      mode,
      'total ms': Math.round(row.totalMs),
      'stop to resume ms': Math.round(row.stopToResumeMs),
      'gap tcp ms': Math.round(row.tcpGapMs),
      'gap udp ms': Math.round(row.udpGapMs),
      'MB on the link': Math.round(row.megabytes),
      'peak agent MiB': row.peakMiB === undefined ? '' : Math.round(row.peakMiB),
    })),
  );
  for (const each of claims)
    console.log(`${each.holds ? 'holds' : 'FAILS'}  ${each.what}: ${each.value} (at most ${each.most})`);
}
process.exitCode = claims.every((each) => each.holds) ? 0 : 1;

async function survived(mode: QemuMode): ReturnType<typeof runQemuMigration> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await runQemuMigration({ mode, ...link });
    } catch (error) {
      if (tries === TRIES) throw error;
      const [why] = (error instanceof Error ? error.message : String(error)).split('\n');
      console.error(`qemu ${mode}: the guest did not survive its move (${why}): once more`);
    }
  }
}

function add(row: Row): void {
  rows.push(row);
  console.error(
    `${row.mode.padEnd(18)} total ${row.totalMs.toFixed(0)} ms, stop to resume ${row.stopToResumeMs.toFixed(0)} ms, gap tcp ${row.tcpGapMs.toFixed(0)} udp ${row.udpGapMs.toFixed(0)} ms, ${row.megabytes.toFixed(0)} MB${row.peakMiB === undefined ? '' : `, peak ${row.peakMiB.toFixed(0)} MiB`}`,
  );
}

function claim(what: string, ours: string, peer: string, figure: (row: Row) => number, most: number) {
  const [a, b] = [medians.get(ours), medians.get(peer)];
  if (!a || !b) return undefined;
  const ratio = figure(a) / figure(b);
  return { what, value: ratio.toFixed(2), most, holds: ratio <= most };
}

function memoryClaim(mostMiB: number) {
  const peak = Math.max(0, ...rows.map((row) => row.peakMiB ?? 0));
  return { what: 'memory of an agent, MiB', value: peak.toFixed(0), most: mostMiB, holds: peak < mostMiB };
}

function medianRow(of: readonly Row[]): Row {
  const median = (figure: (row: Row) => number): number => {
    const sorted = of.map(figure).sort((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  };
  return {
    mode: of[0]!.mode,
    totalMs: median((row) => row.totalMs),
    stopToResumeMs: median((row) => row.stopToResumeMs),
    tcpGapMs: median((row) => row.tcpGapMs),
    udpGapMs: median((row) => row.udpGapMs),
    megabytes: median((row) => row.megabytes),
    ...(of[0]!.peakMiB === undefined ? {} : { peakMiB: median((row) => row.peakMiB ?? 0) }),
  };
}
