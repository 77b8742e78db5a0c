/** What an observer of a migration is told while it runs. Plain data: it crosses the operator's API as it is. */
import type { Phase } from './errors.ts';
import type { ChosenStrategy } from './options.ts';
import type { MigrationReport, RoundRow } from './report/report.ts';

export type MigrationEvent =
  | { readonly type: 'started'; readonly id: string; readonly guest: string; readonly to: string }
  | { readonly type: 'phase'; readonly phase: Phase }
  /** A decision and its reason, in words. */
  | {
      readonly type: 'decision';
      readonly what: string;
      readonly why: string;
      readonly strategy?: ChosenStrategy;
    }
  | {
      /** About five times a second. */
      readonly type: 'progress';
      readonly phase: Phase;
      readonly round: number;
      readonly elapsedMs: number;
      readonly totalBytes: number;
      readonly remainingBytes: number;
      readonly dirtyBytesPerSec: number;
      /** Guest bytes (before compression) per second. */
      readonly bandwidthBytesPerSec: number;
      /** If the guest stopped now. Null where nothing tells: before the first measurement, on a link that stands still. */
      readonly expectedDowntimeMs: number | null;
      readonly rawBytes: number;
      readonly wireBytes: number;
      readonly faults: number;
      /** Of disks that are copied along; what the guest writes meanwhile adds to both. */
      readonly disks?: { readonly copiedBytes: number; readonly totalBytes: number };
    }
  | { readonly type: 'round'; readonly row: RoundRow }
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'finished'; readonly report: MigrationReport };
