/** Whoever decides over a simulated migration: the engine's policy, or one that was published. */
import type { Delivered } from '@vmferry/engine/policy/link-meter';
import type { Seen, SteeringAction } from '@vmferry/engine/policy/steering';
import type { Millis } from '@vmferry/engine/units';

export interface Conductor {
  /** How often `sample` is called; infinite: never. */
  readonly sampleMs: number;
  /** The most that goes over the link now, in bytes per second; 0 is no limit. */
  readonly rateLimit: number;
  readonly over: boolean;
  /** Why and when to look again although nothing happens; infinite where there is no deadline. */
  readonly deadlineMs: number;
  /** Pages after which the guest goes first, in post-copy; infinite where nothing goes before it, or all of it does. */
  readonly headStartPages: number;
  /** See `SteeringPolicy`. */
  readonly landsFirst: boolean;
  begin(now: Millis): readonly SteeringAction[];
  /** So many have gone. */
  headStartOver(): readonly SteeringAction[];
  sample(seen: Seen, delivered: Delivered, now: Millis): readonly SteeringAction[];
  roundEnd(seen: Seen, delivered: Delivered, now: Millis): readonly SteeringAction[];
  /** The hypervisor has stopped the guest by itself. */
  stopped(): readonly SteeringAction[];
  dirtyRateMeasured(bytesPerSec: number): void;
}
