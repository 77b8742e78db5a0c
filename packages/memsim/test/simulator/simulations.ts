/** Simulations for tests: what is not said is a guest of 4 GiB on 10 Gbit/s. */
import { DEFAULT_COSTS } from '../../src/simulator/costs.ts';
import type { LinkConditions } from '../../src/simulator/link.ts';
import type { SimulatedGuest, Simulation } from '../../src/simulator/model.ts';

export const GiB = 2 ** 30;
export const GBIT = 1e9 / 8;

interface Parts extends Partial<Omit<Simulation, 'guest' | 'link' | 'request'>> {
  readonly guest?: Partial<SimulatedGuest>;
  readonly link?: Partial<LinkConditions>;
  readonly changes?: Simulation['link']['changes'];
  readonly request?: Partial<Simulation['request']>;
}

export const QUIET_LINK: LinkConditions = {
  bandwidth: 10 * GBIT,
  latencyMs: 0.1,
  loss: 0,
  otherBytesPerSec: 0,
  otherStreams: 0,
};

export function simulationOf({ guest, link, changes, request, ...others }: Parts = {}): Simulation {
  return {
    guest: {
      name: 'guest',
      memoryBytes: 4 * GiB,
      vcpus: 2,
      content: { zero: 0.3, text: 0.4, random: 0.2, duplicate: 0.1 },
      workload: { kind: 'uniform', pagesPerSec: 5000 },
      ranSeconds: 30,
      dirtyLog: 'round',
      oneLiveRound: false,
      ...guest,
    },
    link: { initial: { ...QUIET_LINK, ...link }, changes: changes ?? [], windowBytes: 16 * 2 ** 20 },
    costs: DEFAULT_COSTS,
    request: {
      strategy: 'auto',
      maxDowntimeMs: 300,
      maxBandwidth: 0,
      streams: 1,
      compress: 'auto',
      ...request,
    },
    adaptiveRate: undefined,
    postcopy: { channel: 'express', prepaging: 'around', queuedBytes: 10 * 2 ** 20 },
    postcopyObstacle: undefined,
    seed: 1,
    ...others,
  };
}
