/** Events about domains: what there is, and what the addon brings made into it. */
import { type JobOperation, type JobStatistics, jobOperation } from './job.ts';
import type { NativeDomainName, NativeParameters } from './table.ts';

/** Which domain; not a handle, so nothing has to be freed. */
export interface DomainName {
  readonly name: string;
  readonly uuid: string;
  /** Undefined where it does not run. */
  readonly id: number | undefined;
}

const lifecycle = {
  defined: ['added', 'updated', 'renamed', 'from-snapshot'],
  undefined: ['removed', 'renamed'],
  started: ['booted', 'migrated', 'restored', 'from-snapshot', 'wakeup'],
  suspended: [
    'paused',
    'migrated',
    'io-error',
    'watchdog',
    'restored',
    'from-snapshot',
    'api-error',
    'post-copy',
    'post-copy-failed',
  ],
  resumed: ['unpaused', 'migrated', 'from-snapshot', 'post-copy', 'post-copy-failed'],
  stopped: ['shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from-snapshot'],
  shutdown: ['finished', 'guest', 'host'],
  'pm-suspended': ['memory', 'disk'],
  crashed: ['panicked', 'crash-loaded'],
} as const;

type Lifecycle = typeof lifecycle;

/** What happened, with one of its own details. `unrecognised` is newer than these tables. */
export type LifecycleChange =
  | {
      [Event in keyof Lifecycle]: {
        readonly event: Event;
        readonly detail: Lifecycle[Event][number] | 'unrecognised';
      };
    }[keyof Lifecycle]
  | { readonly event: 'unrecognised'; readonly detail: 'unrecognised' };

/** What a listener gets, by the event's name. */
export interface DomainEvents {
  readonly lifecycle: LifecycleChange & { readonly domain: DomainName };
  /** A job ended well: not after an abort. For a migration it comes from the source. */
  readonly 'job-completed': {
    readonly domain: DomainName;
    readonly operation: JobOperation;
    readonly statistics: JobStatistics;
  };
  /** A round of a migration begins; the first is 1. */
  readonly 'migration-iteration': { readonly domain: DomainName; readonly iteration: number };
  /** The guest has let a device go, or refused to; `device` is its alias. */
  readonly 'device-removed': { readonly domain: DomainName; readonly device: string };
  readonly 'device-removal-failed': { readonly domain: DomainName; readonly device: string };
  /** The guest agent came or went. */
  readonly agent: {
    readonly domain: DomainName;
    readonly state: 'connected' | 'disconnected' | 'unrecognised';
    readonly reason: 'unknown' | 'domain-started' | 'channel' | 'unrecognised';
  };
}

/** An event of QEMU's own. */
export interface MonitorEvent {
  readonly domain: DomainName;
  /** "MIGRATION", "STOP". */
  readonly event: string;
  /** By QEMU's clock, in milliseconds since 1970; undefined where it did not say. Exact to a microsecond. */
  readonly timeMs: number | undefined;
  /** Its JSON, parsed; undefined where there is none. */
  readonly data: unknown;
}

export type DomainEvent = keyof DomainEvents;

/** virDomainEventID */
export const eventNumbers: Readonly<Record<DomainEvent, number>> = {
  lifecycle: 0,
  'device-removed': 15,
  agent: 18,
  'migration-iteration': 20,
  'job-completed': 21,
  'device-removal-failed': 22,
};

const agentStates = [undefined, 'connected', 'disconnected'] as const;
const agentReasons = ['unknown', 'domain-started', 'channel'] as const;

export interface NativeEvents {
  lifecycle: { domain: NativeDomainName; event: number; detail: number };
  'job-completed': { domain: NativeDomainName; statistics: NativeParameters };
  'migration-iteration': { domain: NativeDomainName; iteration: number };
  'device-removed': { domain: NativeDomainName; device: string };
  'device-removal-failed': { domain: NativeDomainName; device: string };
  agent: { domain: NativeDomainName; state: number; reason: number };
}

export interface NativeMonitorEvent {
  readonly domain: NativeDomainName;
  readonly event: string;
  readonly seconds: bigint;
  readonly microseconds: number;
  readonly details: string;
}

const decoders: { readonly [E in DomainEvent]: (native: NativeEvents[E]) => DomainEvents[E] } = {
  lifecycle: ({ domain, event, detail }) => ({
    domain: domainName(domain),
    ...lifecycleChange(event, detail),
  }),
  'job-completed': ({ domain, statistics }) => ({
    domain: domainName(domain),
    operation: jobOperation(statistics),
    statistics: statistics as JobStatistics,
  }),
  'migration-iteration': ({ domain, iteration }) => ({ domain: domainName(domain), iteration }),
  'device-removed': ({ domain, device }) => ({ domain: domainName(domain), device }),
  'device-removal-failed': ({ domain, device }) => ({ domain: domainName(domain), device }),
  agent: ({ domain, state, reason }) => ({
    domain: domainName(domain),
    state: agentStates[state] ?? 'unrecognised',
    reason: agentReasons[reason] ?? 'unrecognised',
  }),
};

export function decodeEvent<E extends DomainEvent>(event: E, native: NativeEvents[E]): DomainEvents[E] {
  return decoders[event](native);
}

export function decodeMonitorEvent(native: NativeMonitorEvent): MonitorEvent {
  const { domain, event, seconds, microseconds, details } = native;
  return {
    domain: domainName(domain),
    event,
    timeMs: seconds < 0n ? undefined : Number(seconds) * 1000 + microseconds / 1000,
    data: details === '' ? undefined : JSON.parse(details),
  };
}

export function domainName({ name, uuid, id }: NativeDomainName): DomainName {
  return { name, uuid, id: id < 0 ? undefined : id };
}

function lifecycleChange(event: number, detail: number): LifecycleChange {
  const entry = Object.entries(lifecycle)[event];
  if (entry === undefined) return { event: 'unrecognised', detail: 'unrecognised' };
  const [name, details] = entry;
  return { event: name, detail: details[detail] ?? 'unrecognised' } as LifecycleChange;
}
