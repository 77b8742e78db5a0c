/** Both agents in this process, joined over loopback, for tests that watch the hypervisors. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import { createLogger } from '@vmferry/agent-core/log';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { DestAgent, type DestAgentParts } from '@vmferry/dest-agent/agent';
import type { MigrationEvent } from '@vmferry/engine/events';
import { type MigrateRequestInput, migrateRequestSchema } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { SourceAgent, type SourceAgentParts } from '@vmferry/source-agent/agent';
import { Listener } from '@vmferry/wire/listener';
import { Wire } from './wire.ts';

export interface Agents {
  readonly source: SourceAgent;
  readonly dest: DestAgent;
  /** Of the destination agent, where migrations go unless told otherwise. */
  readonly url: string;
  readonly stateDir: string;
  /** Another way to the destination agent, which can be cut: name its URL in a request. */
  readonly wire: Wire;
  migrate(request: Omit<MigrateRequestInput, 'to'> & { readonly to?: string }): RunningMigration;
  /** The destination agent goes away, as one that is told to end. */
  closeDest(): Promise<void>;
  close(): Promise<void>;
}

export interface AgentsOptions {
  readonly source?: Partial<SourceAgentOptions>;
  readonly sourceParts?: SourceAgentParts;
  readonly destParts?: DestAgentParts;
}

export async function startAgents(
  options: Partial<DestAgentOptions> = {},
  { source: sourceOptions, sourceParts, destParts }: AgentsOptions = {},
): Promise<Agents> {
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  const log = createLogger({ level: (process.env['VMFERRY_TEST_LOG'] ?? 'fatal') as 'info', role: 'cli' });
  const dest = new DestAgent({ stateDir, insecure: false, log, ...options }, destParts);
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: {
      '/v1/migration': (socket, peer) => dest.acceptMigration(socket, peer),
      '/v1/data': (socket, peer) => dest.acceptMigration(socket, peer),
    },
  });
  const wire = await Wire.to(listener.url);
  const source = new SourceAgent({ stateDir, insecure: false, log, ...sourceOptions }, sourceParts);
  const closeDest = async (): Promise<void> => {
    await dest.close();
    await listener.close();
  };
  return {
    source,
    dest,
    url: listener.url,
    stateDir,
    wire,
    migrate: (request) => source.migrate(migrateRequestSchema.parse({ to: listener.url, ...request })),
    closeDest,
    async close() {
      await source.close();
      await closeDest();
      await wire.close();
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

/** The first event from now on that matches. Rejects when the migration ends without it. */
export async function when(
  migration: RunningMigration,
  matches: (event: MigrationEvent) => boolean,
): Promise<MigrationEvent> {
  for await (const event of migration.events()) {
    if (matches(event)) return event;
    if (event.type === 'finished') {
      throw new Error(`the migration ended before: ${JSON.stringify(event.report, null, 1)}`);
    }
  }
  throw new Error('the migration has no more events');
}

/** A moment for `when`. */
export const phase =
  (name: string) =>
  (event: MigrationEvent): boolean =>
    event.type === 'phase' && event.phase === name;

/** A moment in the midst of it. */
export const FIRST_ROUND = (event: MigrationEvent): boolean =>
  event.type === 'progress' && event.rawBytes > 1e6;
