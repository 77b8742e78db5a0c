/** Costs by name, each with where its numbers come from. */
import { type Costs, DEFAULT_COSTS } from '../simulator/costs.ts';

export const costNames = ['vmferry', 'xen-2005', 'xen-2009', 'qemu-2022'] as const;
export type CostName = (typeof costNames)[number];

const NONE: Costs = {
  setupMs: 0,
  scanPageUs: 0,
  sendPageUs: 0,
  takePageUs: 0,
  packCores: 1,
  roundMs: 0,
  roundMsPerGiB: 0,
  stopMs: 0,
  bufferedMs: 0,
  bufferedBytes: 0,
  inFlightMs: 0,
  inFlightBytes: 0,
  deviceStateBytes: 0,
  loadStateMs: 0,
  postcopyStateMs: 0,
  missingMsPerGiB: 0,
  discardUs: 0,
  heldBytes: 0,
  heldBatches: 0,
  leadMs: 0,
  leadBytes: 0,
  commitMs: 0,
  resumeMs: 0,
  postcopyResumeMs: 0,
  faultMs: DEFAULT_COSTS.faultMs,
  batchMs: 0,
  pathTripMs: 0,
  completeMs: 0,
};

const COSTS: Readonly<Record<CostName, Costs>> = {
  vmferry: DEFAULT_COSTS,
  /**
   * Clark et al.: two constants for all their rows. A page takes 48 us (map, copy, TCP on a 2 GHz Xeon), which is
   * between what their last rounds come to (18.2 MB in 201 ms are 45 us, 222 MB in 3.5 s are 64 us); and a stop
   * takes 12 ms besides (148 KB in 20 ms are next to nothing of pages). How long the guest takes to start they
   * measured, and each scenario says it.
   */
  'xen-2005': { ...NONE, sendPageUs: 48, stopMs: 12 },
  /** Nothing but the network, and a fault's handling as everywhere. */
  'xen-2009': NONE,
  'qemu-2022': NONE,
};

export function costsNamed(name: CostName): Costs {
  return COSTS[name];
}
