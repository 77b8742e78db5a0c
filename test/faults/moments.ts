/** The moments of a migration at which something can happen to it, phase by phase. */
import type { MigrateRequestInput } from '@vmferry/engine/options';
import type { Attempt, LibvirtLab } from './libvirt-lab.ts';
import type { DestStep, SourceStep } from './steps.ts';

const FAST = { strategy: 'precopy', maxBandwidth: 100e6 } as const;
const POSTCOPY = { strategy: 'postcopy', maxBandwidth: 100e6 } as const;

/** What is finished takes some seconds. */
const SLOW = 8e6;

type Request = Partial<MigrateRequestInput>;

/** What the guest's driver tells, or does, there; `hold`: it waits until the fault is there. */
type Place =
  | { readonly source: SourceStep; readonly hold: boolean; readonly request: Request }
  | { readonly dest: DestStep; readonly hold: boolean; readonly request: Request };

const places = {
  /** libvirt's own set-up, before the first byte of the memory. */
  'set-up': { source: 'rpc', hold: false, request: { strategy: 'precopy' } },
  /** The guest was stopped, and its last state was not sent. */
  stopped: { source: 'state-complete', hold: true, request: FAST },
  /** All was sent; libvirt has not finished. */
  loaded: { dest: 'ready', hold: true, request: FAST },
  /** libvirt has finished on the destination, and nobody was told. */
  finished: { dest: 'ready-done', hold: true, request: FAST },
  /** The commit is on disk, and neither libvirt nor the destination was told. */
  committing: { source: 'commit', hold: true, request: FAST },
  /** libvirt was told, the destination was not. */
  committed: { source: 'committed', hold: true, request: FAST },
  /** The destination has heard it, and has not run the guest. */
  accepted: { dest: 'run', hold: true, request: FAST },
  /** It runs there, and nobody was told. */
  run: { dest: 'run-done', hold: true, request: FAST },
  'post-copy asked for': { source: 'start-postcopy', hold: false, request: POSTCOPY },
  'post-copy complete': { dest: 'complete-done', hold: true, request: POSTCOPY },
} as const satisfies Record<string, Place>;

/** Of a post-copy that came to a halt, and is being finished. */
const resumptions = {
  /** libvirt connects. */
  'resume called for': { source: 'rpc', hold: false, request: {} },
  /** libvirt has prepared the destination, whose QEMU is about to be asked. */
  resume: { source: 'ram', hold: false, request: {} },
  'resume, nobody asked': { source: 'ram', hold: true, request: {} },
  'resume, there to be asked': { dest: 'ram-there', hold: true, request: {} },
  'resume, pages travel': { source: 'ram', hold: false, request: { maxBandwidth: SLOW } },
  /** All pages are there. */
  'resume complete': { dest: 'complete-done', hold: true, request: {} },
} as const satisfies Record<string, Place>;

export const moments = [
  ...(Object.keys(places) as (keyof typeof places)[]),
  ...(Object.keys(resumptions) as (keyof typeof resumptions)[]),
  'disks',
  'rounds',
  'post-copy',
] as const;
export type Moment = (typeof moments)[number];

export interface Reached {
  readonly attempt: Attempt;
  /** Whoever waits there goes on. */
  readonly goOn: () => void;
}

/** Begins a migration and gets to the moment. The lab is prepared. */
export async function reach(lab: LibvirtLab, moment: Moment): Promise<Reached> {
  const free = (attempt: Attempt): Reached => ({ attempt, goOn: () => {} });
  switch (moment) {
    case 'disks': {
      const attempt = await lab.begin({ strategy: 'precopy' });
      await attempt.migration.when(
        (event) => event.type === 'progress' && (event.disks?.copiedBytes ?? 0) > 1e6,
      );
      return free(attempt);
    }
    case 'rounds': {
      const attempt = await lab.begin({ strategy: 'precopy' });
      await attempt.migration.when(
        (event) => event.type === 'progress' && event.phase === 'precopy' && event.rawBytes > 4e6,
      );
      return free(attempt);
    }
    case 'post-copy': {
      const attempt = await lab.begin({ strategy: 'postcopy' });
      await attempt.ticks();
      return free(attempt);
    }
    default: {
      const halted = moment in resumptions ? await lab.halt() : undefined;
      const place: Place = { ...places, ...resumptions }[moment];
      const agent = 'source' in place ? lab.source! : lab.dest!;
      const step = 'source' in place ? place.source : place.dest;
      if (place.hold) agent.hold(step);
      const there = agent.at(step);
      there.catch(() => {});
      const { request } = place;
      const attempt = halted ? lab.resume(halted, request) : await lab.begin(request);
      await there;
      return { attempt, goOn: () => agent.goOn() };
    }
  }
}
