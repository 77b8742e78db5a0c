/**
 * A domain between two libvirtds, on the link, the guest and the client that the other peers have: by libvirt itself,
 * peer-to-peer (as `virsh migrate --p2p`), and by vmferry's agents between them.
 */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { BENCH_GUEST, type LinuxGuestOptions } from '../guest/linux.ts';
import { backMemory } from '../rig/backed-memory.ts';
import type { SerialGuest } from '../rig/guest.ts';
import { type LibvirtHost, startLibvirtHosts } from '../rig/libvirt.ts';
import { DomainPlace, DomainWatcher, linuxDomain } from '../rig/libvirt-guest.ts';
import { within } from '../rig/process.ts';
import { ADDRESSES, guestMac, type TwoHosts, twoHosts } from '../rig/two-hosts.ts';
import type { HostName } from '../rig/versions.ts';
import { hostedAgents } from './hosted-agents.ts';

export interface LibvirtPeerOptions {
  readonly by: 'libvirt' | 'vmferry';
  readonly strategy: 'precopy' | 'postcopy';
  /** The link, as `tc` writes it; undefined leaves it unshaped. */
  readonly rate?: string;
  /** Default BENCH_GUEST. */
  readonly guest?: LinuxGuestOptions;
}

export interface LibvirtPeerResult {
  /** vmferry's. */
  readonly report?: MigrationReport;
  /**
   * Until the guest runs on the destination with all of its memory, ms: vmferry's own figure, from when its agent is
   * asked. libvirt's from the same moment, its call, and to the same one: its own figure leaves out how the guest comes to
   * run there, and in post-copy, which it is of use for, has everything.
   */
  readonly totalMs: number;
  readonly stopToResumeMs: number;
  readonly gapMs: number;
  readonly udpGapMs: number;
  /** Both directions on the link, headers included. */
  readonly bytes: number;
}

/** An existing tap of the rig's. */
const NIC = `<interface type='ethernet'><mac address='${guestMac()}'/><target dev='tap0' managed='no'/>
  <model type='virtio'/><rom enabled='no'/></interface>`;
type Moved = Pick<LibvirtPeerResult, 'totalMs' | 'report'>;

export async function runLibvirtMigration(options: LibvirtPeerOptions): Promise<LibvirtPeerResult> {
  const rig = await twoHosts(options.rate === undefined ? {} : { rate: options.rate });
  try {
    const memory = rig.own(await backMemory());
    const { a, b } = await startLibvirtHosts(rig);
    const toA = connected(rig, await a.connect());
    const toB = connected(rig, await b.connect());
    const named = { name: 'bench', uuid: randomUUID() };
    const here = rig.own(await DomainPlace.await(a, named.name));
    const there = rig.own(await DomainPlace.await(b, named.name));
    const xml = await linuxDomain({
      ...(options.guest ?? BENCH_GUEST),
      ...named,
      addresses: [`eth0:${ADDRESSES.guest}/24`],
      devices: NIC,
    });
    const domain = await toA.createTransient(xml);
    const guest = await within(60_000, () => 'the serial port', here.guest);
    await guest.ready();
    const watcher = rig.own(await DomainWatcher.watch(named.uuid, { a: toA, b: toB }, 'a'));
    const move =
      options.by === 'libvirt'
        ? () => byLibvirt(toA, domain, b, options.strategy)
        : await byVmferry(rig, { a, b }, named.name, options.strategy);
    const probe = await rig.probe();
    await settle(guest);
    const before = await rig.linkCounters();
    await memory.stop();
    probe.mark();
    const askedAtMs = Date.now();
    const { totalMs: toldMs, report } = await move();
    const after = await rig.linkCounters();
    await settle(await within(60_000, () => 'the serial port there', there.guest));
    const seen = await probe.finish();
    const arrived = watcher.handovers()[0];
    const byLibvirtInRounds = options.by === 'libvirt' && options.strategy === 'precopy';
    return {
      totalMs: byLibvirtInRounds && arrived ? arrived.atMs - askedAtMs : toldMs,
      ...(report ? { report } : {}),
      stopToResumeMs: arrived?.downtimeMs ?? Number.NaN,
      gapMs: seen.tcpGap.ms,
      udpGapMs: seen.udpGap.ms,
      bytes: after.txBytes - before.txBytes + after.rxBytes - before.rxBytes,
    };
  } finally {
    await rig.close();
  }
}

function connected(rig: TwoHosts, connection: LibvirtConnection): LibvirtConnection {
  rig.own({ stop: () => connection.close() });
  return connection;
}

/** libvirt's calls go past the link, its RAM over it: QEMU connects to the other host's address. */
async function byLibvirt(
  connection: LibvirtConnection,
  domain: Domain,
  to: LibvirtHost,
  strategy: LibvirtPeerOptions['strategy'],
): Promise<Moved> {
  let totalMs = Number.NaN;
  await connection.subscribe('job-completed', ({ statistics }) => {
    totalMs = Number(statistics.time_elapsed ?? Number.NaN);
  });
  const postcopy = strategy === 'postcopy';
  // As soon as it may be: when the first round begins.
  let started: Promise<void> | undefined;
  if (postcopy) {
    await connection.subscribe('migration-iteration', () => {
      started ??= domain.startPostCopy();
    });
  }
  await domain.migrateToUri(to.uri, {
    flags: ['live', 'peer-to-peer', ...(postcopy ? (['post-copy'] as const) : [])],
    migrateUri: `tcp://${ADDRESSES.b}:4444`,
  });
  await started;
  return { totalMs };
}

async function byVmferry(
  rig: TwoHosts,
  hosts: Readonly<Record<HostName, LibvirtHost>>,
  name: string,
  strategy: LibvirtPeerOptions['strategy'],
): Promise<() => Promise<Moved>> {
  const config = async (host: LibvirtHost): Promise<string> => {
    const file = join(host.dir, 'agent.json');
    await writeFile(file, JSON.stringify({ libvirt: host.agentSettings }));
    return file;
  };
  const configs = { a: await config(hosts.a), b: await config(hosts.b) };
  const agents = await hostedAgents(rig, hosts.a.dir, { configs, rehearsed: true });
  return async () => {
    const args = ['--strategy', strategy, '--announce-ip', ADDRESSES.guest];
    const report = await agents.migrate(`libvirt:${name}`, `libvirt:${name}`, args);
    if (report.error) throw new Error(JSON.stringify(report.error));
    return { totalMs: report.totalMs, report };
  };
}

/** Ten ticks: a second of the guest's own time. */
async function settle(guest: SerialGuest): Promise<void> {
  for (let i = 0; i < 10; i++) await guest.nextTick();
}
