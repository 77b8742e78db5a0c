/** Both agents in this process, joined over loopback, for tests that watch the hypervisors. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DestAgentOptions } from '@vmferry/agent-core/config';
import { createLogger } from '@vmferry/agent-core/log';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { DestAgent } from '@vmferry/dest-agent/agent';
import type { MigrationEvent } from '@vmferry/engine/events';
import { type MigrateRequestInput, migrateRequestSchema } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { Listener } from '@vmferry/wire/listener';

export interface Agents {
  readonly source: SourceAgent;
  readonly dest: DestAgent;
  readonly url: string;
  readonly stateDir: string;
  migrate(request: Omit<MigrateRequestInput, 'to'>): RunningMigration;
  close(): Promise<void>;
}

export async function startAgents(options: Partial<DestAgentOptions> = {}): Promise<Agents> {
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  const log = createLogger({ level: (process.env['VMFERRY_TEST_LOG'] ?? 'fatal') as 'info', role: 'cli' });
  const dest = new DestAgent({ stateDir, insecure: false, log, ...options });
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: { '/v1/migration': (socket, peer) => dest.acceptMigration(socket, peer) },
  });
  const source = new SourceAgent({ stateDir, insecure: false, log });
  return {
    source,
    dest,
    url: listener.url,
    stateDir,
    migrate: (request) => source.migrate(migrateRequestSchema.parse({ ...request, to: listener.url })),
    async close() {
      await source.close();
      await dest.close();
      await listener.close();
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}

export interface Followed {
  readonly report: MigrationReport;
  readonly events: readonly MigrationEvent[];
}

export async function follow(migration: RunningMigration): Promise<Followed> {
  const events: MigrationEvent[] = [];
  for await (const event of migration.events()) events.push(event);
  return { report: await migration.done, events };
}
