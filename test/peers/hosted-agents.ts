/** vmferry as operators have it: an agent as a daemon on each host of the rig, and the command on one. */
import { join } from 'node:path';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { ManagedProcess } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import { ADDRESSES, type TwoHosts } from '../rig/two-hosts.ts';
import type { HostName } from '../rig/versions.ts';

const MAIN = join(repoRoot(), 'packages/migrate-cli/dist/main.js');
/** On a slow link a migration takes minutes. */
const SLOWEST_MS = 600_000;
const PORTS = { source: 4446, dest: 4447 } as const;

export interface HostedAgents {
  readonly source: ManagedProcess;
  readonly dest: ManagedProcess;
  /** From the source's host: `vmferry migrate … --json`. */
  migrate(guest: string, destGuest: string, args?: readonly string[]): Promise<MigrationReport>;
}

/**
 * From host a to host b, or the other way; `stateDir` gets the journals. The built command must be there.
 * `simulate`: guest files that both hosts may have. `configs`: each host's configuration file.
 */
export async function hostedAgents(
  rig: TwoHosts,
  stateDir: string,
  [from, to]: readonly [HostName, HostName] = ['a', 'b'],
  simulate: readonly string[] = [],
  configs?: Readonly<Record<HostName, string>>,
): Promise<HostedAgents> {
  const url = (role: 'source' | 'dest', host: HostName) => `ws://${ADDRESSES[host]}:${PORTS[role]}`;
  const start = (role: 'source' | 'dest', host: HostName): ManagedProcess =>
    rig.spawn(host, [
      ...[process.execPath, MAIN, 'agent', role, '--insecure'],
      ...['--state-dir', join(stateDir, host), '--listen', url(role, host)],
      ...(configs === undefined ? [] : ['--config', configs[host]]),
      ...simulate.flatMap((file) => ['--simulate', file]),
    ]);
  const [source, dest] = [start('source', from), start('dest', to)];
  await Promise.all([listening(source), listening(dest)]);
  return {
    source,
    dest,
    async migrate(guest, destGuest, args = []) {
      const command = [
        ...[process.execPath, MAIN, 'migrate', guest, '--from', url('source', from), '--to', url('dest', to)],
        ...['--dest-guest', destGuest, '--insecure', '--json', ...args],
      ];
      const { stdout } = await rig.exec(from, command, { timeoutMs: SLOWEST_MS });
      return JSON.parse(stdout) as MigrationReport;
    },
  };
}

/** The agent's log on standard error says so. */
async function listening(agent: ManagedProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let said = '';
    agent.child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('agent listens')) resolve();
    });
    void agent.exited.then(() => reject(new Error(`the agent ended: ${said}`)));
  });
}
