/** Domain states and their reasons by name, as `virsh` writes them with hyphens. Numbers: libvirt-domain.h. */

const states = {
  'no-state': ['unknown'],
  running: [
    'unknown',
    'booted',
    'migrated',
    'restored',
    'from-snapshot',
    'unpaused',
    'migration-canceled',
    'save-canceled',
    'wakeup',
    'crashed',
    'post-copy',
    'post-copy-failed',
  ],
  blocked: ['unknown'],
  paused: [
    'unknown',
    'user',
    'migration',
    'save',
    'dump',
    'io-error',
    'watchdog',
    'from-snapshot',
    'shutting-down',
    'snapshot',
    'crashed',
    'starting-up',
    'post-copy',
    'post-copy-failed',
  ],
  'shutting-down': ['unknown', 'user'],
  'shut-off': [
    'unknown',
    'shutdown',
    'destroyed',
    'crashed',
    'migrated',
    'saved',
    'failed',
    'from-snapshot',
    'daemon',
  ],
  crashed: ['unknown', 'panicked'],
  'pm-suspended': ['unknown'],
} as const;

type States = typeof states;

/** A state with one of its own reasons. `unrecognised` is one that is newer than these tables. */
export type DomainState =
  | {
      [State in keyof States]: {
        readonly state: State;
        readonly reason: States[State][number] | 'unrecognised';
      };
    }[keyof States]
  | { readonly state: 'unrecognised'; readonly reason: 'unrecognised' };

export function domainState(state: number, reason: number): DomainState {
  const entry = Object.entries(states)[state];
  if (entry === undefined) return { state: 'unrecognised', reason: 'unrecognised' };
  const [name, reasons] = entry;
  return { state: name, reason: reasons[reason] ?? 'unrecognised' } as DomainState;
}
