import { readFile } from 'node:fs/promises';
import type { ChosenStrategy } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { BENCH_GUEST } from '../guest/linux.ts';
import { backMemory } from '../rig/backed-memory.ts';
import type { ProbeResult } from '../rig/client-gap.ts';
import { verifyHistory } from '../rig/guest.ts';
import { ADDRESSES, type RigGuestOptions, twoHosts } from '../rig/two-hosts.ts';
import { hostedAgents } from './hosted-agents.ts';

export interface VmferryOptions {
  readonly strategy: ChosenStrategy | 'auto';
  /** The link, as `tc` writes it; undefined leaves it unshaped. */
  readonly rate?: string;
  /** Default BENCH_GUEST. */
  readonly guest?: RigGuestOptions;
  /** Further options of `vmferry migrate`. */
  readonly args?: readonly string[];
}

export interface VmferryResult {
  readonly strategy: string;
  readonly report: MigrationReport;
  readonly totalMs: number;
  readonly downtimeMs: number;
  /** From the STOP event on the source to the RESUME event on the destination, ms. */
  readonly stopToResumeMs: number;
  readonly gapMs: number;
  readonly udpGapMs: number;
  /** Both directions on the link, headers included. */
  readonly bytes: number;
  /** Most memory that each agent's process had, bytes. */
  readonly sourcePeakBytes: number;
  readonly destPeakBytes: number;
  readonly probe: ProbeResult;
}

/** vmferry between two hosts, as daemons on each, on the link, the guest and the client of the QEMU peer. */
export async function runVmferryMigration(options: VmferryOptions): Promise<VmferryResult> {
  const guest: RigGuestOptions = options.guest ?? BENCH_GUEST;
  const rig = await twoHosts(options.rate === undefined ? {} : { rate: options.rate });
  try {
    const memory = rig.own(await backMemory());
    const src = await rig.startGuest('a', guest);
    const dst = await rig.startIncoming('b', guest);
    const watcher = await rig.watch([src.qemu, dst.qemu]);
    const agents = await hostedAgents(rig, src.qemu.dir, { rehearsed: true });
    const probe = await rig.probe();
    await settle(src);
    const before = await rig.linkCounters();
    await memory.stop();
    probe.mark();
    const report = await agents.migrate(`qemu:${src.qemu.productQmp}`, `qemu:${dst.qemu.productQmp}`, [
      ...['--strategy', options.strategy, '--announce-ip', ADDRESSES.guest],
      ...(options.args ?? []),
    ]);
    const after = await rig.linkCounters();
    await dst.nextTick();
    await settle(dst);
    const seen = await probe.finish();
    await verifyHistory([src, dst]);
    const { handovers } = await watcher.finish();
    return {
      strategy: options.strategy,
      report,
      totalMs: report.totalMs,
      downtimeMs: report.downtimeMs,
      stopToResumeMs: handovers[0]?.downtimeMs ?? Number.NaN,
      gapMs: seen.tcpGap.ms,
      udpGapMs: seen.udpGap.ms,
      bytes: after.txBytes - before.txBytes + after.rxBytes - before.rxBytes,
      sourcePeakBytes: await peakBytes(agents.source.pid),
      destPeakBytes: await peakBytes(agents.dest.pid),
      probe: seen,
    };
  } finally {
    await rig.close();
  }
}

async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * 1024;
}

/** Ten ticks: a second of the guest's own time. */
async function settle(guest: { nextTick(): Promise<unknown> }): Promise<void> {
  for (let i = 0; i < 10; i++) await guest.nextTick();
}
