/** libvirt's flags by name: each function takes a list of its own. Numbers: libvirt-domain.h. */
import { boundsError } from '../errors.ts';

/** `live`: the domain keeps running (always say it, but for `offline`). */
export const migrateFlags = {
  live: 1 << 0,
  /** The source's libvirtd talks to the destination's by itself. */
  'peer-to-peer': 1 << 1,
  tunnelled: 1 << 2,
  /** The destination keeps the definition. */
  'persist-destination': 1 << 3,
  'undefine-source': 1 << 4,
  /** Left paused on the destination. */
  paused: 1 << 5,
  /** Copies disks whole, or only what they hold above their backing files. */
  'non-shared-disk': 1 << 6,
  'non-shared-incremental': 1 << 7,
  'change-protection': 1 << 8,
  /** Even if a disk's cache mode may lose data. */
  unsafe: 1 << 9,
  offline: 1 << 10,
  compressed: 1 << 11,
  'abort-on-error': 1 << 12,
  'auto-converge': 1 << 13,
  'rdma-pin-all': 1 << 14,
  /** Allows post-copy; `Domain.startPostCopy` starts it. */
  'post-copy': 1 << 15,
  tls: 1 << 16,
  /** Several connections (multifd). */
  parallel: 1 << 17,
  'non-shared-synchronous-writes': 1 << 18,
  /** Takes a post-copy up again whose connection broke. */
  'post-copy-resume': 1 << 19,
  'zero-copy': 1 << 20,
} as const;

export const createFlags = {
  /** Leaves it paused. */
  paused: 1 << 0,
  /** Destroys it when the connection closes. */
  'auto-destroy': 1 << 1,
  'bypass-cache': 1 << 2,
  /** Drops a managed save. */
  'force-boot': 1 << 3,
  /** Checks the XML against the schema; only for `createTransient`. */
  validate: 1 << 4,
  'reset-nvram': 1 << 5,
} as const;

export const defineFlags = {
  /** Checks the XML against the schema. */
  validate: 1 << 0,
} as const;

export const destroyFlags = {
  /** Fails rather than killing what does not end by itself. */
  graceful: 1 << 0,
  'remove-logs': 1 << 1,
} as const;

export const undefineFlags = {
  'managed-save': 1 << 0,
  'snapshots-metadata': 1 << 1,
  nvram: 1 << 2,
  'keep-nvram': 1 << 3,
  'checkpoints-metadata': 1 << 4,
  tpm: 1 << 5,
  'keep-tpm': 1 << 6,
} as const;

export const xmlFlags = {
  /** With secrets; not on a read-only connection. */
  secure: 1 << 0,
  /** The definition for the next start. */
  inactive: 1 << 1,
  /** The CPU as the guest sees it. */
  'update-cpu': 1 << 2,
  /** As a destination takes it. */
  migratable: 1 << 3,
} as const;

/** Within a pair or group they add, between groups they narrow. */
export const listFlags = {
  active: 1 << 0,
  inactive: 1 << 1,
  persistent: 1 << 2,
  transient: 1 << 3,
  running: 1 << 4,
  paused: 1 << 5,
  'shut-off': 1 << 6,
  'other-state': 1 << 7,
  'managed-save': 1 << 8,
  'no-managed-save': 1 << 9,
  autostart: 1 << 10,
  'no-autostart': 1 << 11,
  snapshots: 1 << 12,
  'no-snapshots': 1 << 13,
  checkpoints: 1 << 14,
  'no-checkpoints': 1 << 15,
} as const;

/** Neither: what the domain is now, running or not. */
export const deviceFlags = {
  live: 1 << 0,
  config: 1 << 1,
  force: 1 << 2,
} as const;

export const statisticsGroups = {
  state: 1 << 0,
  'cpu-total': 1 << 1,
  balloon: 1 << 2,
  vcpu: 1 << 3,
  interface: 1 << 4,
  block: 1 << 5,
  perf: 1 << 6,
  iothread: 1 << 7,
  memory: 1 << 8,
  'dirty-rate': 1 << 9,
  vm: 1 << 10,
} as const;

/** The first eight say which domains; see `listFlags`. */
export const statisticsFlags = {
  active: 1 << 0,
  inactive: 1 << 1,
  persistent: 1 << 2,
  transient: 1 << 3,
  running: 1 << 4,
  paused: 1 << 5,
  'shut-off': 1 << 6,
  'other-state': 1 << 7,
  /** Leaves out what a busy domain would have to be waited for. */
  'no-wait': 1 << 29,
  /** Disks' backing files, too. */
  backing: 1 << 30,
  /** Fails for a group that this libvirtd does not know. */
  enforce: 2 ** 31,
} as const;

export const jobStatisticsFlags = {
  /** Of the last job that ended; they are gone once read. */
  completed: 1 << 0,
  /** Reading leaves them. */
  'keep-completed': 1 << 1,
} as const;

export const abortJobFlags = {
  /** Pauses a post-copy migration, which can be resumed. libvirt 8.5. */
  'post-copy': 1 << 0,
} as const;

export const maxSpeedFlags = {
  /** Of post-copy, and not of the rounds. */
  'post-copy': 1 << 0,
} as const;

export const compareFlags = {
  /** Fails with the reason (`VIR_ERR_CPU_INCOMPATIBLE`) rather than answering "incompatible". */
  'fail-incompatible': 1 << 0,
  validate: 1 << 1,
} as const;

export const monitorCommandFlags = {
  /** For people (HMP), and not JSON. */
  human: 1 << 0,
} as const;

export const monitorEventFlags = {
  /** The name is a regular expression. */
  pattern: 1 << 0,
  'ignore-case': 1 << 1,
} as const;

/** How the dirty rate is found: from a sample of pages, or exactly. */
export const dirtyRateModes = { sampling: 0, bitmap: 1 << 0, ring: 1 << 1 } as const;

export type FlagsOf<Table> = readonly (keyof Table & string)[];

/** Throws `E_NATIVE_BOUNDS` for a name that is not there. */
export function bits<Table extends Readonly<Record<string, number>>>(
  table: Table,
  names: FlagsOf<Table> | undefined,
): number {
  let sum = 0;
  for (const name of new Set(names ?? [])) {
    const bit = Object.hasOwn(table, name) ? table[name] : undefined;
    if (bit === undefined) {
      throw boundsError(`there is no flag '${String(name)}', only ${Object.keys(table).join(', ')}`);
    }
    sum += bit;
  }
  return sum;
}
