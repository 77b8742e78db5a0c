/** An agent as the command sees it, in its own process or behind a socket. */

import type { MigrationSummary, Operations, RunningMigration } from '@vmferry/agent-core/operations';
import {
  type AgentHello,
  errorReportSchema,
  eventSchema,
  helloSchema,
  migrationsReplySchema,
  reportReplySchema,
  statusReplySchema,
  summaryReplySchema,
} from '@vmferry/agent-core/operator-api';
import { VERSION } from '@vmferry/agent-core/version';
import { fromWireError } from '@vmferry/agent-core/wire-errors';
import { type ErrorReport, MigrationError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { WireError } from '@vmferry/wire/errors';
import { OperatorError } from '@vmferry/wire/operator';
import { OperatorClient, type OperatorStream } from '@vmferry/wire/operator-client';
import type { ConnectOptions } from '@vmferry/wire/socket';

/** One migration that is being watched. */
export interface Observation {
  /** As it was when watching began. */
  readonly summary: MigrationSummary;
  /** Ends when there is a report or no more can be learnt. Never throws. */
  readonly events: AsyncIterable<MigrationEvent>;
  /** Rejects with `ConnectionLost` when the agent cannot be heard any more. */
  readonly report: Promise<MigrationReport>;
}

export interface Status {
  readonly summary: MigrationSummary;
  readonly report: MigrationReport | null;
}

/** All reject with `MigrationError`. */
export interface Operator {
  readonly hello: AgentHello;
  migrate(request: MigrateRequest): Promise<Observation>;
  watch(id: string): Promise<Observation>;
  cancel(id: string): Promise<MigrationSummary>;
  list(): Promise<readonly MigrationSummary[]>;
  status(id: string): Promise<Status>;
  close(): void;
}

/** The connection to an agent ended while a migration ran there: the migration goes on. */
export class ConnectionLost extends MigrationError {
  constructor(url: string, id: string | undefined, cause: WireError) {
    const how = id === undefined ? `vmferry list --agent ${url}` : `vmferry watch ${id} --agent ${url}`;
    super(
      `${cause.message}; ${id === undefined ? 'whether the migration began is not known' : 'the migration goes on there'}`,
      {
        code: 'E_LINK_LOST',
        side: 'cli',
        phase: 'connect',
        guestRunsOn: 'unknown',
        remedy: `See what becomes of it with \`${how}\`.`,
      },
      { cause },
    );
  }
}

export function localOperator(operations: Operations): Operator {
  const find = (id: string): RunningMigration => {
    const migration = operations.find(id);
    if (migration === undefined) throw new Error(`there is no migration ${id}`);
    return migration;
  };
  const observe = (migration: RunningMigration): Observation => ({
    summary: migration.summary,
    events: migration.events(),
    report: migration.done,
  });
  return {
    hello: { role: operations.role, version: VERSION },
    migrate: async (request) => observe(operations.migrate(request)),
    watch: async (id) => observe(find(id)),
    cancel: async (id) => {
      const migration = find(id);
      migration.cancel();
      return migration.summary;
    },
    list: async () => operations.list(),
    status: async (id) => ({ summary: find(id).summary, report: null }),
    close: () => {},
  };
}

/** Rejects with `MigrationError` when there is no agent, or it does not let us in. */
export async function connectOperator(
  url: string,
  options: Pick<ConnectOptions, 'tls' | 'insecure'> & { readonly token?: string },
): Promise<Operator> {
  const { token, ...connectOptions } = options;
  let client: OperatorClient | undefined;
  try {
    client = await OperatorClient.connect(url, connectOptions);
    const hello = parse(helloSchema, await client.call('hello', token === undefined ? {} : { token }), url);
    return remoteOperator(client, url, hello);
  } catch (thrown) {
    client?.close();
    throw asMigrationError(thrown, url);
  }
}

function remoteOperator(client: OperatorClient, url: string, hello: AgentHello): Operator {
  const call = async <T>(schema: Schema<T>, asked: () => Promise<unknown>): Promise<T> => {
    try {
      return parse(schema, await asked(), url);
    } catch (thrown) {
      throw asMigrationError(thrown, url);
    }
  };
  return {
    hello,
    migrate: (request) => observeStream(client.stream('migrate', { request }), url, undefined),
    watch: (id) => observeStream(client.stream('watch', { migration: id }), url, id),
    cancel: async (id) =>
      (await call(summaryReplySchema, () => client.call('cancel', { migration: id }))).summary,
    list: async () => (await call(migrationsReplySchema, () => client.call('list', {}))).migrations,
    status: (id) => call(statusReplySchema, () => client.call('status', { migration: id })),
    close: () => client.close(),
  };
}

/** Resolves when the agent told which migration it is. `asked` is known only when watching. */
async function observeStream(
  stream: OperatorStream,
  url: string,
  asked: string | undefined,
): Promise<Observation> {
  const events = stream.events[Symbol.asyncIterator]();
  const first = await events.next();
  const lost = (id: string | undefined) => (thrown: unknown) => {
    throw thrown instanceof WireError ? new ConnectionLost(url, id, thrown) : asMigrationError(thrown, url);
  };
  if (first.done === true) {
    await stream.result.catch(lost(asked));
    throw protocolError(url, 'it told nothing of the migration');
  }
  const { summary } = parse(summaryReplySchema, first.value, url);
  const report = stream.result
    .then((result) => parse(reportReplySchema, result, url).report)
    .catch(lost(summary.id));
  // Whoever asks for it is told; until then it is nobody's unhandled rejection.
  report.catch(() => {});
  return { summary, events: knownEvents(events), report };
}

/** Events that a later agent may send and that mean nothing here are passed over. */
async function* knownEvents(events: AsyncIterator<unknown>): AsyncGenerator<MigrationEvent> {
  for (;;) {
    const next = await events.next();
    if (next.done === true) return;
    const parsed = eventSchema.safeParse(next.value);
    if (parsed.success) yield parsed.data;
  }
}

interface Schema<T> {
  safeParse(
    content: unknown,
  ):
    | { readonly success: true; readonly data: T }
    | { readonly success: false; readonly error: { readonly issues: readonly SchemaIssue[] } };
}

interface SchemaIssue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

function parse<T>(schema: Schema<T>, content: unknown, url: string): T {
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw protocolError(
    url,
    `${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'not understood'}`,
  );
}

function protocolError(url: string, why: string): MigrationError {
  return new MigrationError(`the answer of the agent at ${url} is not understood: ${why}`, {
    code: 'E_PROTOCOL',
    side: 'cli',
    phase: 'connect',
    guestRunsOn: 'unknown',
    remedy: 'Run the same version of vmferry on both ends.',
  });
}

function asMigrationError(thrown: unknown, url: string): unknown {
  if (thrown instanceof WireError) {
    return fromWireError(thrown, { side: 'cli', phase: 'connect', guestRunsOn: 'source' });
  }
  if (!(thrown instanceof OperatorError)) return thrown;
  const full = errorReportSchema.safeParse(thrown.report);
  const report: ErrorReport = full.success
    ? full.data
    : {
        code: thrown.code === 'E_AUTH' ? 'E_AUTH' : 'E_REFUSED',
        message: `the agent at ${url} refuses: ${thrown.message}`,
        remedy: thrown.code === 'E_AUTH' ? 'Give the agent’s token with --token-file.' : thrown.remedy,
        side: 'cli',
        phase: 'connect',
        guestRunsOn: 'source',
      };
  return new MigrationError(report.message, report, { cause: thrown });
}
