/**
 * What the operations of the operator's API carry. The envelope is the wire's; both ends check the content
 * against these schemas. Keys that are not known are dropped: a later version may add some.
 *
 *     hello                          ─▶ AgentHello
 *     migrate {request}              ─▶ {summary}, MigrationEvent… ─▶ {report}
 *     list                           ─▶ {migrations}
 *     status {migration?}            ─▶ {migrations} or {summary, report}
 *     watch {migration}              ─▶ {summary}, MigrationEvent… ─▶ {report}
 *     cancel {migration}             ─▶ {summary}
 *
 * `migrate` and `watch` are observers: when the command goes away, the migration does not.
 */
import type { ErrorCode, ErrorReport } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import { strategies } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { z } from 'zod';
import type { MigrationSummary } from './operations.ts';

const role = z.enum(['source', 'dest']);
const phase = z.enum([
  'connect',
  'preflight',
  'setup',
  'precopy',
  'switchover',
  'postcopy',
  'completion',
  'rollback',
]);
const outcome = z.enum(['completed', 'failed', 'cancelled', 'refused', 'attention']);
const strategy = z.enum(strategies);
const chosenStrategy = strategy.exclude(['auto']);

export const helloSchema = z.object({
  role: z.enum(['source', 'dest', 'host']),
  version: z.string().max(64),
});
export type AgentHello = z.infer<typeof helloSchema>;

export const summarySchema = z.object({
  id: z.string().min(1).max(128),
  role,
  guest: z.string(),
  peer: z.string(),
  strategy,
  phase,
  startedAt: z.number(),
  finishedAt: z.number().exactOptional(),
  outcome: outcome.exactOptional(),
}) satisfies z.ZodType<MigrationSummary>;

/** Codes of a later agent pass as they are. */
const errorCode = z.string().regex(/^E_[A-Z_]{1,60}$/) as unknown as z.ZodType<ErrorCode, ErrorCode>;

export const errorReportSchema = z.object({
  code: errorCode,
  message: z.string(),
  side: z.enum(['source', 'dest', 'cli']),
  phase,
  guestRunsOn: z.enum(['source', 'dest', 'neither', 'unknown']),
  remedy: z.string(),
}) satisfies z.ZodType<ErrorReport>;

const roundSchema = z.object({
  round: z.number(),
  pages: z.number(),
  rawBytes: z.number(),
  wireBytes: z.number(),
  durationMs: z.number(),
  dirtyBytesPerSec: z.number(),
  bandwidthBytesPerSec: z.number(),
});

export const reportSchema = z.object({
  schema: z.literal(1),
  outcome,
  strategy,
  guest: z.string(),
  totalMs: z.number(),
  downtimeMs: z.number(),
  downtimeUncertaintyMs: z.number(),
  downtime: z.object({
    finalPagesMs: z.number(),
    deviceStateMs: z.number(),
    commitMs: z.number(),
    resumeMs: z.number(),
  }),
  switchover: z.object({ reason: z.string() }),
  rounds: z.array(roundSchema).max(10_000),
  pages: z.object({ raw: z.number(), zero: z.number(), same: z.number(), delta: z.number() }),
  rawBytes: z.number(),
  wireBytes: z.number(),
  faults: z.object({ count: z.number(), p50Ms: z.number(), p99Ms: z.number(), maxMs: z.number() }),
  link: z.object({ streams: z.number(), reconnects: z.number(), tls: z.boolean() }),
  announce: z.object({
    frames: z.number(),
    interfaces: z.array(z.string()).max(1024),
    // An agent of before this field waited for all rounds.
    underWay: z.boolean().default(false),
  }),
  notes: z.array(z.string()).max(1024),
  error: errorReportSchema.nullable(),
}) satisfies z.ZodType<MigrationReport>;

export const eventSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('started'), id: z.string(), guest: z.string(), to: z.string() }),
  z.object({ type: z.literal('phase'), phase }),
  z.object({
    type: z.literal('decision'),
    what: z.string(),
    why: z.string(),
    strategy: chosenStrategy.exactOptional(),
  }),
  z.object({
    type: z.literal('progress'),
    phase,
    round: z.number(),
    elapsedMs: z.number(),
    totalBytes: z.number(),
    remainingBytes: z.number(),
    dirtyBytesPerSec: z.number(),
    bandwidthBytesPerSec: z.number(),
    expectedDowntimeMs: z.number().nullable(),
    rawBytes: z.number(),
    wireBytes: z.number(),
    faults: z.number(),
    disks: z.object({ copiedBytes: z.number(), totalBytes: z.number() }).exactOptional(),
  }),
  z.object({ type: z.literal('round'), row: roundSchema }),
  z.object({ type: z.literal('note'), text: z.string() }),
  z.object({ type: z.literal('finished'), report: reportSchema }),
]) satisfies z.ZodType<MigrationEvent>;

/** The first thing on a stream of events. */
export const summaryReplySchema = z.object({ summary: summarySchema });
export const reportReplySchema = z.object({ report: reportSchema });
export const migrationsReplySchema = z.object({ migrations: z.array(summarySchema).max(10_000) });
export const statusReplySchema = z.object({ summary: summarySchema, report: reportSchema.nullable() });
