/** Faults as a closed loop: a vCPU that waits asks for nothing, so the more they wait the less they ask. Pure. */
import {
  ARRIVAL_MS,
  bulkBudget,
  GRANT_EVERY_MS,
  STARVED_MS,
  starvedGrant,
} from '@vmferry/engine/postcopy/bulk-budget';

/** Of the time: what is rarer than this changes nothing. */
const RARELY = 1e-4;

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

/** vCPUs that run, and think for times that are exponential, until each has faulted: then they wait for the outage's end. */
export function outage(
  vcpus: number,
  faultsPerMs: number,
  outageMs: number,
): { readonly faults: number; readonly waitMs: number; readonly ranMs: number } {
  if (faultsPerMs <= 0) return { faults: 0, waitMs: 0, ranMs: outageMs };
  const thinkMs = vcpus / faultsPerMs;
  const share = 1 - Math.exp(-outageMs / thinkMs);
  const ranMs = thinkMs * share;
  return { faults: vcpus * share, waitMs: (outageMs - ranMs) / share, ranMs };
}

export interface Background {
  readonly vcpus: number;
  /** Faults of all vCPUs if none ever had to wait: out of the blue, and of walks, which come at even distances. */
  readonly atRandomPerMs: number;
  readonly walksPerMs: number;
  /** Faults as they come. */
  readonly loop: FaultLoop;
  /** In flight at full speed, in bytes of pages. */
  readonly neededBytes: number;
  /** A batch goes as soon as there is any room for it. */
  readonly batchBytes: number;
  /** A batch's time at full speed. */
  readonly batchMs: number;
  readonly linkBytesPerSec: number;
  /** How long the guest has run at its new place. */
  readonly arrivedMs: number;
}

/** The share of full speed that the background has beside such faults, by the engine's budget. */
export function backgroundShare(background: Background): number {
  const { vcpus, atRandomPerMs, walksPerMs, loop } = background;
  const { neededBytes, batchBytes, batchMs, linkBytesPerSec, arrivedMs } = background;
  const conditions = { answerMs: loop.waitMs, linkBytesPerSec, arrivedMs };
  const shareAt = (quietMs: number): number => {
    const budget = bulkBudget(quietMs, conditions);
    return budget === 0 ? 0 : Math.min(1, Math.max(budget, batchBytes) / neededBytes);
  };
  if (atRandomPerMs + walksPerMs <= 0) return shareAt(Number.POSITIVE_INFINITY);
  const thinkMs = atRandomPerMs > 0 ? vcpus / atRandomPerMs : Number.POSITIVE_INFINITY;
  const gap = gapOf(loop.waitMs, thinkMs);
  const walkMs = walksPerMs > 0 ? 1 / walksPerMs + loop.waitMs : Number.POSITIVE_INFINITY;
  // How much of the time it is at least so long since the last fault.
  const quieter = (ms: number): number => gap.ageOver(ms) ** vcpus * Math.max(0, 1 - ms / walkMs);
  const most = shareAt(Number.POSITIVE_INFINITY);
  // Fine enough for a budget that doubles with each two answers' time.
  const stepMs = Math.max(1, loop.waitMs / 2);
  let share = 0;
  let quietMs = 0;
  let moment = Number.POSITIVE_INFINITY;
  let [rest, shareThen] = [quieter(0), shareAt(0)];
  while (rest > RARELY && shareThen < most) {
    const restAfter = quieter(quietMs + stepMs);
    share += (rest - restAfter) * shareAt(quietMs + stepMs / 2);
    if (shareThen > 0) moment = Math.min(moment, quietMs);
    quietMs += stepMs;
    [rest, shareThen] = [restAfter, shareAt(quietMs)];
  }
  share += rest * shareThen;
  const turnsPerMs = loop.faultsPerMs * gap.over(moment);
  const inTurns = turnsPerMs > 0 ? turnsPerMs * atLeastOne(share / turnsPerMs, batchMs) : share;
  // Where it had none of late, what it is granted.
  const granted = arrivedMs < ARRIVAL_MS ? 0 : grantedShare(background);
  return Math.min(1, inTurns + granted * Math.exp(-turnsPerMs * STARVED_MS));
}

/** Each time that it has a turn a whole batch goes; turns are exponential, with this mean. */
function atLeastOne(turnMs: number, batchMs: number): number {
  return turnMs > 0 ? batchMs + turnMs * Math.exp(-batchMs / turnMs) : batchMs;
}

/** Of the time, what goes although faults come: each time whole batches, of which the last may be more than is granted. */
function grantedShare({ batchBytes, batchMs, linkBytesPerSec }: Background): number {
  const batches = Math.ceil(starvedGrant(linkBytesPerSec) / batchBytes);
  return Math.min(1, (batches * batchMs) / GRANT_EVERY_MS);
}

interface Gap {
  /** How many are longer, and how much of the time it is longer ago, 0 to 1. */
  readonly over: (ms: number) => number;
  readonly ageOver: (ms: number) => number;
}

/** From a fault of a vCPU to its next: it waits, then thinks, for times that are exponential with these means. */
function gapOf(waitMs: number, thinkMs: number): Gap {
  if (thinkMs === Number.POSITIVE_INFINITY) return { over: () => 1, ageOver: () => 1 };
  // The same mean twice would divide by nothing.
  const wait = Math.abs(waitMs - thinkMs) < thinkMs * 1e-3 ? thinkMs * 1.001 : waitMs;
  const over = (ms: number, waits: number, thinks: number): number =>
    (waits * Math.exp(-ms / wait) - thinks * Math.exp(-ms / thinkMs)) / (wait - thinkMs);
  return {
    over: (ms) => over(ms, wait, thinkMs),
    ageOver: (ms) => over(ms, wait * wait, thinkMs * thinkMs) / (wait + thinkMs),
  };
}
