/** Jobs: what libvirt does with a domain that takes its time, above all migrations. */
import type { Parameters } from './parameters.ts';
import type { NativeJobInfo } from './table.ts';

const types = ['none', 'bounded', 'unbounded', 'completed', 'failed', 'cancelled'] as const;

/**
 * `bounded`: the remaining time is known; `unbounded`: it is not, as in a migration. `unrecognised` is one that is newer
 * than these tables.
 */
export type JobType = (typeof types)[number] | 'unrecognised';

const operations = [
  'unknown',
  'start',
  'save',
  'restore',
  'migration-in',
  'migration-out',
  'snapshot',
  'snapshot-revert',
  'dump',
  'backup',
  'snapshot-delete',
] as const;

export type JobOperation = (typeof operations)[number] | 'unrecognised';

/** A job in short: virDomainJobInfo. Memory and files (disks) add up to the data. */
export interface JobInfo extends Omit<NativeJobInfo, 'type'> {
  readonly type: JobType;
}

/**
 * A job in full, by libvirt's names (VIR_DOMAIN_JOB_*); which fields are there depends on the job. Times in
 * milliseconds, `_net` without the difference of the hosts' clocks; `_bps` in bytes a second. While post-copy is under
 * way `downtime` means nothing.
 */
export interface JobStatistics extends Parameters {
  readonly operation?: number;
  readonly time_elapsed?: bigint;
  readonly time_elapsed_net?: bigint;
  readonly time_remaining?: bigint;
  /** The expected one, before the end. */
  readonly downtime?: bigint;
  readonly downtime_net?: bigint;
  readonly setup_time?: bigint;
  /** Bytes. */
  readonly data_total?: bigint;
  readonly data_processed?: bigint;
  readonly data_remaining?: bigint;
  /** Bytes. */
  readonly memory_total?: bigint;
  readonly memory_processed?: bigint;
  readonly memory_remaining?: bigint;
  /** Pages: all of one value, and sent whole. */
  readonly memory_constant?: bigint;
  readonly memory_normal?: bigint;
  readonly memory_normal_bytes?: bigint;
  readonly memory_bps?: bigint;
  /** Pages a second. */
  readonly memory_dirty_rate?: bigint;
  /** Bytes. */
  readonly memory_page_size?: bigint;
  readonly memory_iteration?: bigint;
  readonly memory_postcopy_requests?: bigint;
  /** Bytes. */
  readonly disk_total?: bigint;
  readonly disk_processed?: bigint;
  readonly disk_remaining?: bigint;
  readonly disk_bps?: bigint;
  readonly compression_cache?: bigint;
  readonly compression_bytes?: bigint;
  readonly compression_pages?: bigint;
  readonly compression_cache_misses?: bigint;
  readonly compression_overflow?: bigint;
  /** Per cent by which the guest's CPUs are slowed. */
  readonly auto_converge_throttle?: number;
  readonly success?: boolean;
  readonly errmsg?: string;
}

export interface Job {
  readonly type: JobType;
  readonly operation: JobOperation;
  readonly statistics: JobStatistics;
}

export function jobType(number: number): JobType {
  return types[number] ?? 'unrecognised';
}

export function jobOperation(statistics: Parameters): JobOperation {
  const number = statistics['operation'];
  if (number === undefined) return 'unknown';
  return (typeof number === 'number' ? operations[number] : undefined) ?? 'unrecognised';
}
