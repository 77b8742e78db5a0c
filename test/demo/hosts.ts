/** Where the demo's guest moves: two hosts in namespaces with a client beside them, or two QEMUs and no network. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Strategy } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import type { ClientProbe } from '../rig/client-gap.ts';
import { GuestProcess } from '../rig/guest.ts';
import { ManagedProcess } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import { ADDRESSES, twoHosts } from '../rig/two-hosts.ts';
import type { HostName } from '../rig/versions.ts';

export interface Move {
  readonly strategy: Strategy;
  readonly from: HostName;
  readonly to: HostName;
  readonly src: GuestProcess;
  readonly dst: GuestProcess;
}

export interface Hosts {
  /** In words. */
  readonly link: string;
  boot(host: HostName, guest: LinuxGuestOptions): Promise<GuestProcess>;
  incoming(host: HostName, guest: LinuxGuestOptions): Promise<GuestProcess>;
  /** Undefined where there is no network. */
  probe(): Promise<ClientProbe | undefined>;
  /** By the command, as an operator would. */
  migrate(move: Move): Promise<MigrationReport>;
  /** Any number of times. */
  close(): Promise<void>;
}

const MAIN = join(repoRoot(), 'packages/migrate-cli/dist/main.js');
const PORT = 4447;
const RATE = '1gbit';

/** With an agent for guests that arrive on each host. Rejects where namespaces may not be made. */
export async function namespacedHosts(): Promise<Hosts> {
  const rig = await twoHosts({ rate: RATE });
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-demo-'));
  const url = (host: HostName) => `ws://${ADDRESSES[host]}:${PORT}`;
  const close = async () => {
    await rig.close();
    await rm(stateDir, { recursive: true, force: true });
  };
  try {
    const agents = (['a', 'b'] as const).map((host) =>
      rig.spawn(host, [
        ...[process.execPath, MAIN, 'agent', 'dest', '--listen', url(host), '--insecure'],
        ...['--state-dir', join(stateDir, host)],
      ]),
    );
    await Promise.all(agents.map(listening));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    link: `two hosts in network namespaces, a link of ${RATE} between their agents, a client beside them`,
    boot: (host, guest) => rig.startGuest(host, { ...guest, name: host }),
    incoming: (host, guest) => rig.startIncoming(host, { ...guest, name: host }),
    probe: () => rig.probe(),
    migrate: ({ strategy, from, to, src, dst }) => {
      const argv = migrateCommand({ strategy, src, dst, stateDir: join(stateDir, from) });
      const network = ['--to', url(to), '--insecure', '--announce-ip', ADDRESSES.guest];
      return reportOf(rig.spawn(from, [...argv, ...network]));
    },
    close,
  };
}

/** Both agents inside the command. */
export async function bareHosts(): Promise<Hosts> {
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-demo-'));
  const started: { stop(): Promise<unknown> }[] = [];
  const own = <T extends { stop(): Promise<unknown> }>(thing: T): T => {
    started.push(thing);
    return thing;
  };
  return {
    link: 'two QEMUs on this host, joined over loopback; without a network nothing can be said of clients',
    boot: async (host, guest) => own(await GuestProcess.boot(guest, { name: host, host })),
    incoming: async (host, guest) => own(await GuestProcess.incoming(guest, { name: host, host })),
    probe: async () => undefined,
    migrate: (move) => reportOf(own(new ManagedProcess(migrateCommand({ ...move, stateDir })))),
    async close() {
      await Promise.allSettled(started.splice(0).map((thing) => thing.stop()));
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}

function migrateCommand(options: {
  readonly strategy: Strategy;
  readonly src: GuestProcess;
  readonly dst: GuestProcess;
  readonly stateDir: string;
}): string[] {
  const { strategy, src, dst, stateDir } = options;
  return [
    ...[process.execPath, MAIN, 'migrate', `qemu:${src.qemu.productQmp}`],
    ...['--dest-guest', `qemu:${dst.qemu.productQmp}`, '--strategy', strategy],
    ...['--state-dir', stateDir, '--json'],
  ];
}

/** Of the command, whose exit status says nothing that the report does not. */
async function reportOf(command: ManagedProcess): Promise<MigrationReport> {
  const chunks: Buffer[] = [];
  command.child.stdout.on('data', (data: Buffer) => chunks.push(data));
  const { code, signal } = await command.exited;
  const text = Buffer.concat(chunks).toString();
  if (text === '') throw new Error(`vmferry migrate ended with ${code ?? signal}: ${command.stderr}`);
  return JSON.parse(text) as MigrationReport;
}

/** The agent's log says so. */
async function listening(agent: ManagedProcess): Promise<void> {
  const up = new Promise<void>((resolve) => {
    agent.child.stderr.on('data', () => {
      if (agent.stderr.includes('agent listens')) resolve();
    });
  });
  const ended = agent.exited.then(() => Promise.reject(new Error(`an agent ended: ${agent.stderr}`)));
  await Promise.race([up, ended]);
}
