/** vmferry as operators have it: an agent as a daemon on each host of the rig, and the command on one. */
import { join } from 'node:path';
import type { MigrationSummary } from '@vmferry/agent-core/operations';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { type ManagedProcess, within } from '../rig/process.ts';
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
  /** What the source's agent knows, the latest first: `vmferry list --json`. */
  list(): Promise<readonly MigrationSummary[]>;
}

export interface HostedAgentsOptions {
  /** Guest files that both hosts may have. */
  readonly simulate?: readonly string[];
  /** Each host's configuration file. */
  readonly configs?: Readonly<Record<HostName, string>>;
  /** They are there once they have rehearsed, as daemons have long when a migration comes. Default false. */
  readonly rehearsed?: boolean;
}

/** From host a to host b. `stateDir` gets the journals. The built command must be there. */
export async function hostedAgents(
  rig: TwoHosts,
  stateDir: string,
  { simulate = [], configs, rehearsed = false }: HostedAgentsOptions = {},
): Promise<HostedAgents> {
  const url = (role: 'source' | 'dest', host: HostName) => `ws://${ADDRESSES[host]}:${PORTS[role]}`;
  const start = (role: 'source' | 'dest', host: HostName): ManagedProcess =>
    rig.spawn(host, [
      ...[process.execPath, MAIN, 'agent', role, '--insecure'],
      ...['--state-dir', join(stateDir, host), '--listen', url(role, host)],
      ...(configs === undefined ? [] : ['--config', configs[host]]),
      ...(rehearsed ? [] : ['--no-rehearsal']),
      ...simulate.flatMap((file) => ['--simulate', file]),
    ]);
  const [source, dest] = [start('source', 'a'), start('dest', 'b')];
  const ready = rehearsed ? '"rehearsed"' : 'agent listens';
  await Promise.all([saying(source, ready), saying(dest, ready)]);
  return {
    source,
    dest,
    async migrate(guest, destGuest, args = []) {
      const command = [
        ...[process.execPath, MAIN, 'migrate', guest, '--from', url('source', 'a'), '--to', url('dest', 'b')],
        ...['--dest-guest', destGuest, '--insecure', '--json', ...args],
      ];
      // Its exit status says nothing that the report does not.
      const child = rig.spawn('a', command);
      let text = '';
      child.child.stdout.setEncoding('utf8').on('data', (data: string) => {
        text += data;
      });
      const { code, signal } = await within(SLOWEST_MS, () => 'end of the migration', child.exited);
      if (text === '') throw new Error(`vmferry migrate ended with ${code ?? signal}: ${child.stderr}`);
      return JSON.parse(text) as MigrationReport;
    },
    async list() {
      const command = [process.execPath, MAIN, 'list', '--agent', url('source', 'a'), '--insecure', '--json'];
      const { stdout } = await rig.exec('a', command);
      return (JSON.parse(stdout) as { migrations: MigrationSummary[] }).migrations;
    },
  };
}

/** Resolves when the agent's log, on standard error, has these words. */
async function saying(agent: ManagedProcess, words: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let said = '';
    agent.child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(words)) resolve();
    });
    void agent.exited.then(() => reject(new Error(`the agent ended: ${said}`)));
  });
}
