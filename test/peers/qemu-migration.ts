import { BENCH_GUEST } from '../guest/linux.ts';
import { backMemory } from '../rig/backed-memory.ts';
import type { ProbeResult } from '../rig/client-gap.ts';
import { verifyHistory } from '../rig/guest.ts';
import { migrateByQemu, type QemuMigrationPlan } from '../rig/migrate-qemu.ts';
import { ADDRESSES, type RigGuestOptions, twoHosts } from '../rig/two-hosts.ts';

export type QemuMode = 'precopy' | 'postcopy' | 'postcopy-preempt' | 'multifd' | 'multifd-zstd' | 'xbzrle';

export interface QemuPeerOptions {
  readonly mode: QemuMode;
  /** The link, as `tc` writes it; undefined leaves it unshaped. */
  readonly rate?: string;
  /** QEMU's `max-bandwidth`, bytes/s; 0 leaves the link as the only limit. Default 0. */
  readonly bandwidth?: number;
  /** Default BENCH_GUEST. */
  readonly guest?: RigGuestOptions;
}

export interface QemuPeerResult {
  readonly mode: QemuMode;
  /** QEMU's total time, ms. */
  readonly totalMs: number;
  /** QEMU's own account of the downtime, ms. */
  readonly downtimeMs: number;
  /** From the STOP event on the source to the RESUME event on the destination, ms. */
  readonly stopToResumeMs: number;
  /** What a client saw over TCP, ms. */
  readonly gapMs: number;
  /** What a client saw over UDP, ms. */
  readonly udpGapMs: number;
  /** Both directions on the link, headers included. */
  readonly bytes: number;
  readonly probe: ProbeResult;
}

const PLANS: Readonly<Record<QemuMode, Omit<QemuMigrationPlan, 'uri'>>> = {
  precopy: {},
  postcopy: { capabilities: ['postcopy-ram'], postcopy: true },
  'postcopy-preempt': { capabilities: ['postcopy-ram', 'postcopy-preempt'], postcopy: true },
  multifd: { capabilities: ['multifd'], parameters: { 'multifd-channels': 2 } },
  'multifd-zstd': {
    capabilities: ['multifd'],
    parameters: { 'multifd-channels': 2, 'multifd-compression': 'zstd' },
  },
  xbzrle: { capabilities: ['xbzrle'] },
};

/**
 * QEMU's own migration between two hosts, on the link, the guest and the client that vmferry is measured with.
 * The guest is verified afterwards.
 */
export async function runQemuMigration(options: QemuPeerOptions): Promise<QemuPeerResult> {
  const guest: RigGuestOptions = options.guest ?? BENCH_GUEST;
  const rig = await twoHosts(options.rate === undefined ? {} : { rate: options.rate });
  try {
    const memory = rig.own(await backMemory());
    const src = await rig.startGuest('a', guest);
    const dst = await rig.startIncoming('b', { ...guest, autostart: true });
    const watcher = await rig.watch([src.qemu, dst.qemu]);
    const probe = await rig.probe();
    await settle(src);
    const before = await rig.linkCounters();
    const plan = PLANS[options.mode];
    const limit = options.bandwidth ? { 'max-bandwidth': options.bandwidth } : {};
    await memory.stop();
    probe.mark();
    const result = await migrateByQemu(src.qemu, dst.qemu, {
      ...plan,
      uri: `tcp:${ADDRESSES.b}:4444`,
      parameters: { ...plan.parameters, ...limit },
    });
    const after = await rig.linkCounters();
    await dst.nextTick();
    await settle(dst);
    const seen = await probe.finish();
    // A plain guest of QEMU's own pre-copy may be damaged by a fault that is not the bench's to judge.
    if (!guest.plainMemory) await verifyHistory([src, dst]);
    const { handovers } = await watcher.finish();
    return {
      mode: options.mode,
      totalMs: result.totalMs,
      downtimeMs: result.downtimeMs,
      stopToResumeMs: handovers[0]?.downtimeMs ?? Number.NaN,
      gapMs: seen.tcpGap.ms,
      udpGapMs: seen.udpGap.ms,
      bytes: after.txBytes - before.txBytes + after.rxBytes - before.rxBytes,
      probe: seen,
    };
  } finally {
    await rig.close();
  }
}

/** Ten ticks: a second of the guest's own time. */
async function settle(guest: { nextTick(): Promise<unknown> }): Promise<void> {
  for (let i = 0; i < 10; i++) await guest.nextTick();
}
