/** The engine's own policy, driven as the source agent drives it. */
import type { MigrateRequest } from '@vmferry/engine/options';
import { SteeringPolicy } from '@vmferry/engine/policy/steering';
import { bytesPerSec, type Millis } from '@vmferry/engine/units';
import type { Conductor } from './conductor.ts';

export interface EnginePolicyOptions {
  readonly request: Pick<
    MigrateRequest,
    'strategy' | 'maxDowntimeMs' | 'deadlineMs' | 'onStall' | 'headStartMs' | 'maxBandwidth'
  >;
  readonly memoryBytes: number;
  readonly oneLiveRound: boolean;
  readonly postcopyObstacle: string | undefined;
}

export function enginePolicy(options: EnginePolicyOptions, now: Millis): Conductor {
  const { request } = options;
  const policy = new SteeringPolicy(options, now);
  return {
    rateLimit: request.maxBandwidth,
    deadlineMs: request.deadlineMs === undefined ? Number.POSITIVE_INFINITY : now + request.deadlineMs,
    get sampleMs() {
      return policy.sampleMs;
    },
    get over() {
      return policy.over;
    },
    headStartPages: policy.headStart?.pages ?? Number.POSITIVE_INFINITY,
    landsFirst: policy.landsFirst,
    begin: (at) => policy.begin(at),
    headStartOver: () => policy.headStartOver(),
    sample: (seen, delivered, at) => policy.sample(seen, delivered, at),
    roundEnd: (seen, delivered, at) => policy.roundEnd(seen, delivered, at),
    stopped: () => policy.stopped(),
    dirtyRateMeasured: (rate) => policy.dirtyRateMeasured(bytesPerSec(rate)),
  };
}
