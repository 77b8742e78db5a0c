/** What happens to one domain, as libvirt and its QEMU tell it, for whoever waits for something of it. */
import type { LibvirtConnection, Subscription } from '@vmferry/native/libvirt/connection';
import type { LifecycleChange, MonitorEvent } from '@vmferry/native/libvirt/events';
import type { JobStatistics } from '@vmferry/native/libvirt/job';

export type DomainHappening =
  | { readonly type: 'lifecycle'; readonly change: LifecycleChange }
  /** QEMU's own: STOP, RESUME, MIGRATION, MIGRATION_PASS, BLOCK_JOB_COMPLETED, BLOCK_JOB_CANCELLED. */
  | {
      readonly type: 'monitor';
      readonly event: string;
      readonly atMs: number;
      readonly data: Readonly<Record<string, unknown>>;
    }
  | { readonly type: 'job-completed'; readonly statistics: JobStatistics };

type Listener = (happening: DomainHappening) => void;

export class DomainEvents {
  readonly #listeners = new Set<Listener>();
  #subscriptions: Subscription[] = [];

  /** By UUID: a domain that is still to come has no handle yet. */
  static async subscribe(connection: LibvirtConnection, uuid: string): Promise<DomainEvents> {
    const events = new DomainEvents();
    const mine = (domain: { readonly uuid: string }): boolean => domain.uuid === uuid;
    const monitor = (event: MonitorEvent): void => {
      if (mine(event.domain)) events.#tell(monitorHappening(event));
    };
    events.#subscriptions = await Promise.all([
      connection.subscribe('lifecycle', ({ domain, ...change }) => {
        if (mine(domain)) events.#tell({ type: 'lifecycle', change: change as LifecycleChange });
      }),
      connection.subscribe('job-completed', ({ domain, statistics }) => {
        if (mine(domain)) events.#tell({ type: 'job-completed', statistics });
      }),
      connection.subscribeMonitor(
        '^(STOP|RESUME|MIGRATION|MIGRATION_PASS|BLOCK_JOB_(COMPLETED|CANCELLED))$',
        monitor,
        {
          flags: ['pattern'],
        },
      ),
    ]);
    return events;
  }

  /** Until the returned function is called. */
  on(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first that something comes of. */
  next<T>(look: (happening: DomainHappening) => T | undefined): Promise<T> {
    return new Promise((resolve) => {
      const off = this.on((happening) => {
        const found = look(happening);
        if (found === undefined) return;
        off();
        resolve(found);
      });
    });
  }

  #tell(happening: DomainHappening): void {
    for (const listener of [...this.#listeners]) listener(happening);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await Promise.all(this.#subscriptions.splice(0).map((subscription) => subscription.close()));
  }
}

/** When QEMU was told to give the memory's migration, or a disk's copy, up; undefined where this says nothing of it. */
export function cancelledAtMs(happening: DomainHappening): number | undefined {
  if (happening.type !== 'monitor') return undefined;
  const status = statusIn(happening);
  const cancelled =
    happening.event === 'BLOCK_JOB_CANCELLED' || status === 'cancelling' || status === 'cancelled';
  return cancelled ? happening.atMs : undefined;
}

/** The statuses in which QEMU's migration is over. */
export type MigrationEnding = 'completed' | 'failed' | 'cancelled';

/** What QEMU's migration has become. */
export function statusIn(happening: DomainHappening): string | undefined {
  if (happening.type !== 'monitor' || happening.event !== 'MIGRATION') return undefined;
  return String(happening.data['status']);
}

export function migrationEnding(happening: DomainHappening): MigrationEnding | undefined {
  const status = statusIn(happening);
  return status === 'completed' || status === 'failed' || status === 'cancelled' ? status : undefined;
}

function monitorHappening({ event, timeMs, data }: MonitorEvent): DomainHappening {
  const fields = typeof data === 'object' && data !== null ? (data as Record<string, unknown>) : {};
  return { type: 'monitor', event, atMs: timeMs ?? Date.now(), data: fields };
}
