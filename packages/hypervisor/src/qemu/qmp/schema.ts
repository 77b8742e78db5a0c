/**
 * The replies and events that vmferry reads, of QEMU 6.0 to 10. Loose: keys that a version adds are no
 * fault, and keys that a version lacks are optional.
 */
import { z } from 'zod';
import type { ExecuteOptions, QmpClient } from './client.ts';
import type { QmpArguments } from './commands.ts';
import { QmpError } from './errors.ts';

/** What runs commands: a client, or a stand-in for one. */
export type QmpExecutor = Pick<QmpClient, 'execute'>;

const count = z.number().nonnegative();

/** Commands that answer with nothing. */
export const emptySchema = z.looseObject({});

export const versionReply = z.looseObject({
  qemu: z.looseObject({ major: z.int(), minor: z.int(), micro: z.int() }),
  package: z.string().default(''),
});

/** Whether KVM runs the guest; without it QEMU emulates. */
export const kvmReply = z.looseObject({ enabled: z.boolean(), present: z.boolean() });

export const statusReply = z.looseObject({ status: z.string(), running: z.boolean() });

/** Sizes in bytes, times in milliseconds, rates in pages per second (`dirty-pages-rate`) or Mbit/s. */
export const migrateReply = z.looseObject({
  /** Absent before the first migration. "none" on an idle destination of some versions. */
  status: z.string().optional(),
  'total-time': count.optional(),
  'setup-time': count.optional(),
  downtime: count.optional(),
  'expected-downtime': count.optional(),
  'cpu-throttle-percentage': count.optional(),
  'error-desc': z.string().optional(),
  'blocked-reasons': z.array(z.string()).optional(),
  ram: z
    .looseObject({
      total: count,
      remaining: count,
      transferred: count,
      duplicate: count.optional(),
      normal: count.optional(),
      'normal-bytes': count.optional(),
      mbps: z.number().optional(),
      'page-size': count.optional(),
      'dirty-pages-rate': count.optional(),
      'dirty-sync-count': count.optional(),
      'postcopy-requests': count.optional(),
    })
    .optional(),
});

/** What QEMU has open, in bytes. "file": the path. */
export const blockNodesReply = z.array(
  z.looseObject({ file: z.string(), image: z.looseObject({ 'actual-size': count.optional() }) }),
);

/** MiB per second; absent while it is being measured. */
export const dirtyRateReply = z.looseObject({ status: z.string(), 'dirty-rate': count.optional() });

export const capabilitiesReply = z.array(z.looseObject({ capability: z.string(), state: z.boolean() }));

/** Each version has its own; the values are numbers, strings, booleans, null or (bitmap mappings) more. */
export const parametersReply = z.record(z.string(), z.unknown());

export const cpusReply = z.array(z.looseObject({ 'cpu-index': z.int(), 'qom-path': z.string() }));

/** Bytes. */
export const memorySizeReply = z.looseObject({
  'base-memory': z.number().positive(),
  'plugged-memory': count.default(0),
});

export const rxFilterReply = z.array(z.looseObject({ name: z.string(), 'main-mac': z.string() }));

/** What could be broken by `yank`: among it the sockets of a migration. */
export const yankReply = z.array(z.looseObject({ type: z.string() }));

/** What `human-monitor-command` and `qom-get` of a text property answer. */
export const textReply = z.string();
/** What `qom-get` of a property that is on or off answers. */
export const flagReply = z.boolean();

/** `data` of the events that vmferry listens to. STOP and RESUME have none. */
export const stopEvent = z.looseObject({});
export const resumeEvent = z.looseObject({});
/** Statuses are those of query-migrate. */
export const migrationEvent = z.looseObject({ status: z.string() });
/** The round that begins, from 1. */
export const migrationPassEvent = z.looseObject({ pass: z.int() });
export const shutdownEvent = z.looseObject({ guest: z.boolean(), reason: z.string().optional() });

/**
 * Runs a command and checks what it returns.
 *
 * @throws QmpError as `execute` does, and E_QMP_REPLY if the answer has another shape.
 */
export async function typed<Schema extends z.ZodType>(
  client: QmpExecutor,
  command: string,
  schema: Schema,
  args?: QmpArguments,
  options?: ExecuteOptions,
): Promise<z.output<Schema>> {
  const found = schema.safeParse(await client.execute(command, args, options));
  if (found.success) return found.data;
  const text = `QEMU's answer to ${command} has a shape that vmferry does not know: ${z.prettifyError(found.error)}`;
  throw new QmpError('E_QMP_REPLY', text, { command }, { cause: found.error });
}

/** Runs a command of QEMU's human monitor and gives its text. */
export function humanMonitor(client: QmpExecutor, line: string): Promise<string> {
  return typed(client, 'human-monitor-command', textReply, { 'command-line': line });
}
