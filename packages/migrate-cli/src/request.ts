/** From the options of `vmferry migrate` to a request. */
import type { LogLevel } from '@vmferry/agent-core/log';
import { type MigrateRequest, migrateRequestSchema } from '@vmferry/engine/options';
import { usageError } from './reports.ts';
import type { HostOptions } from './settings.ts';

/** As commander gives them. Milliseconds and bytes per second. */
export interface MigrateOptions extends HostOptions {
  readonly from?: string;
  readonly to?: string;
  readonly destGuest?: string;
  readonly strategy: MigrateRequest['strategy'];
  readonly maxDowntime: number;
  readonly deadline?: number;
  readonly headStart?: number;
  readonly maxBandwidth?: number;
  readonly streams: number;
  readonly compress: MigrateRequest['compress'];
  readonly onStall?: MigrateRequest['onStall'];
  readonly announceIp?: readonly string[];
  readonly guestAgent?: string;
  readonly keepSource?: boolean;
  /** A post-copy that came to a halt is to be finished. */
  readonly resume?: boolean;
  readonly undefineSource?: boolean;
  /** A file's name on the command line, and its content in a request. */
  readonly destXml?: string;
  readonly copyStorage: MigrateRequest['copyStorage'];
  readonly json?: boolean;
  readonly events?: string;
  readonly junit?: string;
  readonly logLevel: LogLevel;
}

/** How people know the fields of a request. */
const FLAGS: Readonly<Record<string, string>> = {
  guest: 'GUEST',
  to: '--to',
  destGuest: '--dest-guest',
  maxDowntimeMs: '--max-downtime',
  deadlineMs: '--deadline',
  headStartMs: '--head-start',
  maxBandwidth: '--max-bandwidth',
  streams: '--streams',
  announceIps: '--announce-ip',
  guestAgent: '--guest-agent',
  destXml: '--dest-xml',
};

/** Throws `E_USAGE`, with all faults in one message. */
export function requestOf(
  guest: string,
  to: string,
  insecure: boolean,
  options: MigrateOptions,
): MigrateRequest {
  const { destGuest, deadline, maxBandwidth, onStall, announceIp, guestAgent } = options;
  const parsed = migrateRequestSchema.safeParse({
    guest,
    to,
    strategy: options.strategy,
    maxDowntimeMs: options.maxDowntime,
    streams: options.streams,
    compress: options.compress,
    destroySource: options.keepSource !== true,
    insecure,
    ...(destGuest === undefined ? {} : { destGuest }),
    ...(deadline === undefined ? {} : { deadlineMs: deadline }),
    ...(maxBandwidth === undefined ? {} : { maxBandwidth }),
    ...(onStall === undefined ? {} : { onStall }),
    ...(announceIp === undefined ? {} : { announceIps: announceIp }),
    ...(guestAgent === undefined ? {} : { guestAgent }),
    // Agents that are older know nothing of these.
    ...(options.headStart === undefined ? {} : { headStartMs: options.headStart }),
    ...(options.resume === true ? { resume: true } : {}),
    ...(options.undefineSource === true ? { undefineSource: true } : {}),
    ...(options.copyStorage === 'none' ? {} : { copyStorage: options.copyStorage }),
    ...(options.destXml === undefined ? {} : { destXml: options.destXml }),
  });
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map(({ path, message }) => {
    const field = String(path[0] ?? '');
    return `${FLAGS[field] ?? field}: ${message}`;
  });
  throw usageError(faults.join('; '));
}
