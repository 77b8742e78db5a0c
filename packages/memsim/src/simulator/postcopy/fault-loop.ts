/** Faults as a closed loop: a vCPU that waits asks for nothing, so the more they wait the less they ask. Pure. */
import { bulkBudget, MOST_IN_FLIGHT, QUIET_MS, STARVED_SHARE } from '@vmferry/engine/postcopy/bulk-budget';

export interface FaultLoop {
  readonly faultsPerMs: number;
  readonly waitMs: number;
  /** Share of the time that a vCPU runs, 0 to 1. */
  readonly running: number;
}

export interface FaultDemand {
  readonly vcpus: number;
  /** Faults of all vCPUs if none ever had to wait. */
  readonly faultsPerMs: number;
  /** What a fault waits where no other is on its way. */
  readonly aloneMs: number;
  /** Time on the link for all that a fault brings. */
  readonly serviceMs: number;
}

/** Mean value analysis: vCPUs think, then queue at the link; handling and the network are a delay. */
export function faultLoop({ vcpus, faultsPerMs, aloneMs, serviceMs }: FaultDemand): FaultLoop {
  if (faultsPerMs <= 0) return { faultsPerMs: 0, waitMs: aloneMs, running: 1 };
  const thinkMs = vcpus / faultsPerMs;
  let queue = 0;
  let waitMs = aloneMs;
  let throughput = 0;
  for (let customers = 1; customers <= vcpus; customers += 1) {
    waitMs = aloneMs + serviceMs * queue;
    throughput = Math.min(customers / (thinkMs + waitMs), 1 / serviceMs);
    queue = throughput * serviceMs * (1 + queue);
  }
  // Where the link is what limits them, they wait for what they would else ask.
  waitMs = Math.max(waitMs, vcpus / throughput - thinkMs);
  return { faultsPerMs: throughput, waitMs, running: Math.max(0, 1 - (throughput * waitMs) / vcpus) };
}

/**
 * The share of full speed that the background has beside such faults, by the engine's budget.
 *
 * @param neededBytes in flight at full speed
 */
export function backgroundShare(faultsPerMs: number, neededBytes: number): number {
  if (faultsPerMs <= 0) return Math.min(1, MOST_IN_FLIGHT / neededBytes);
  let share = 0;
  let quietMs = QUIET_MS;
  // So long since the last fault, as often as faults that come at random leave it.
  for (; bulkBudget(quietMs) < MOST_IN_FLIGHT; quietMs += QUIET_MS) {
    const often = Math.exp(-faultsPerMs * quietMs) - Math.exp(-faultsPerMs * (quietMs + QUIET_MS));
    share += often * Math.min(1, bulkBudget(quietMs) / neededBytes);
  }
  share += Math.exp(-faultsPerMs * quietMs) * Math.min(1, MOST_IN_FLIGHT / neededBytes);
  // What it is granted whatever comes.
  return Math.max(share, STARVED_SHARE);
}
