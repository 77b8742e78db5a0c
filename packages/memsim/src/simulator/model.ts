/** What one simulated migration is made from, and what it comes to. */
import type { MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { Content, Held } from './content.ts';
import type { Costs } from './costs.ts';
import type { Region, Workload } from './dirty/regions.ts';
import type { LinkChange, LinkConditions } from './link.ts';
import type { AdaptiveRate } from './policy/adaptive-rate.ts';

/**
 * When the dirty log forgets a page.
 * - `round`: all are forgotten at the begin of the round that sends them (QEMU's TCG, the simulated guest).
 * - `send`: each when it is sent: what is written before that goes along (KVM with manual protection).
 * - `skip`: as `round`, but a page that was written again before its turn waits for the next round (Xen).
 */
export type DirtyLog = 'round' | 'send' | 'skip';

/** How pages are had in post-copy. */
export interface PostcopyModel {
  /** `express`: an answer overtakes everything; `shared`: it waits behind all that was sent before. */
  readonly channel: 'express' | 'shared';
  /**
   * `around`: the engine's pre-paging; `pivot`: what goes next in the background lies beside the last fault
   * (Hines and Gopalan); `none`.
   */
  readonly prepaging: 'around' | 'pivot' | 'none';
  /** Where the channel is shared: what sockets hold before an answer. */
  readonly queuedBytes: number;
}

export interface Place {
  readonly region: Region;
  readonly held: Held;
}

export interface SimulatedGuest {
  readonly name: string;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly content: Content;
  /** Where memory holds something else than elsewhere, but for what the workload writes there. They do not overlap. */
  readonly places?: readonly Place[];
  readonly workload: Workload;
  /** How long it ran before, in seconds. */
  readonly ranSeconds: number;
  readonly dirtyLog: DirtyLog;
  readonly oneLiveRound: boolean;
}

export interface Simulation {
  readonly guest: SimulatedGuest;
  readonly link: {
    readonly initial: LinkConditions;
    readonly changes: readonly LinkChange[];
    readonly windowBytes: number;
  };
  readonly costs: Costs;
  readonly request: Pick<
    MigrateRequest,
    | 'strategy'
    | 'maxDowntimeMs'
    | 'deadlineMs'
    | 'onStall'
    | 'headStartMs'
    | 'maxBandwidth'
    | 'streams'
    | 'compress'
  >;
  /** Undefined: the engine's. */
  readonly adaptiveRate: AdaptiveRate | undefined;
  readonly postcopy: PostcopyModel;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
  readonly seed: number;
}

/** A moment of the migration, for plots. */
export interface SeriesPoint {
  readonly atMs: number;
  readonly remainingBytes: number;
  readonly faults: number;
}

export interface Decision {
  readonly atMs: number;
  readonly what: string;
  readonly why: string;
}

export interface SimulationResult {
  readonly report: MigrationReport;
  readonly series: readonly SeriesPoint[];
  readonly decisions: readonly Decision[];
  /** Bytes of pages that were sent with the guest stopped. */
  readonly finalBytes: number;
  readonly postcopy: PostcopyFigures | undefined;
}

export interface PostcopyFigures {
  /** Pages that were missing when the guest ran on. */
  readonly missingPages: number;
  /** Of those, pages that went out: each once. */
  readonly sentPages: number;
  /** Pages that the guest read or wrote while any were missing, each once: its working set. */
  readonly touchedPages: number;
  readonly faults: number;
  /** Mean wait of a fault, in milliseconds. */
  readonly meanWaitMs: number;
}
