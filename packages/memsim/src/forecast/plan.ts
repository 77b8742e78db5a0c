/** What is known of a guest and a link by measurement, as a simulation. */
import type { GuestDescription } from '@vmferry/engine/guest';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { DEFAULT_CONTENT } from '../guest-file/schema.ts';
import type { Content } from '../simulator/content.ts';
import { DEFAULT_COSTS } from '../simulator/costs.ts';
import type { Workload } from '../simulator/dirty/regions.ts';
import type { Simulation } from '../simulator/model.ts';
import { type DirtyCount, fitWorkingSet } from './fit-working-set.ts';

export interface Measured {
  readonly description: Pick<GuestDescription, 'kind' | 'name' | 'memoryBytes' | 'vcpus' | 'oneLiveRound'>;
  /** Different pages in a shorter time and in a longer one; undefined where that cannot be told. */
  readonly dirty: readonly [DirtyCount, DirtyCount] | undefined;
  readonly roundTripMs: number;
  /** Payload bytes per second. */
  readonly bytesPerSec: number;
  readonly postcopyObstacle: string | undefined;
  /** What memory holds, where that is known. */
  readonly content?: Content;
}

/** A guest of which nothing is known: its zeroes lie where it does not write. */
const UNKNOWN_CONTENT: Content = { ...DEFAULT_CONTENT, writtenLeft: 0.65 };
/** The share of a line that is payload: what was measured is payload. */
const PAYLOAD_SHARE = 1448 / 1514;
const WINDOW_BYTES = 16 * 1024 * 1024;

export function planned(measured: Measured, request: Simulation['request']): Simulation {
  const { description, dirty, roundTripMs, bytesPerSec, postcopyObstacle, content } = measured;
  const memoryPages = description.memoryBytes / PAGE_BYTES;
  const workload: Workload = dirty ? fitWorkingSet(memoryPages, ...dirty) : { kind: 'idle' };
  return {
    guest: {
      name: description.name,
      memoryBytes: description.memoryBytes,
      vcpus: description.vcpus,
      content: content ?? UNKNOWN_CONTENT,
      workload,
      ranSeconds: 0,
      dirtyLog: 'round',
      oneLiveRound: description.oneLiveRound,
    },
    link: {
      initial: {
        bandwidth: bytesPerSec / PAYLOAD_SHARE,
        latencyMs: roundTripMs / 2,
        loss: 0,
        otherBytesPerSec: 0,
        otherStreams: 0,
      },
      changes: [],
      windowBytes: WINDOW_BYTES,
    },
    // A simulated guest has nothing of its own on the way when a post-copy begins at once.
    costs:
      description.kind === 'sim'
        ? { ...DEFAULT_COSTS, heldBytes: 0, heldBatches: 0, leadMs: 0, leadBytes: 0 }
        : DEFAULT_COSTS,
    request,
    adaptiveRate: undefined,
    postcopy: { channel: 'express', prepaging: 'around', queuedBytes: 0 },
    postcopyObstacle,
    seed: 1,
  };
}
