/**
 * The thread of one vCPU. It sleeps on its own word, which is counted up whenever there is something to look at.
 *
 *     paused ──▶ running ⇄ waiting for a page ──▶ paused ──▶ ended
 */
import { parentPort, workerData } from 'node:worker_threads';
import { type GuestDefinition, streamsOf } from '../workload/streams.ts';
import { hasShared } from './bitmap.ts';
import {
  Control,
  isRunning,
  Run,
  runOf,
  type SharedBuffers,
  SIGNAL_WORDS,
  Signal,
  viewState,
  WAIT_NUMBERS,
  Wait,
} from './shared.ts';
import { Vcpu } from './vcpu.ts';

export interface VcpuThreadData {
  readonly index: number;
  readonly definition: GuestDefinition;
  readonly buffers: SharedBuffers;
}

export type VcpuMessage =
  /** Stands still since it was told to, or since it began. */
  | { readonly type: 'halted' }
  /** Waits for this page. */
  | { readonly type: 'fault'; readonly page: number };

/** Accesses come in bursts of what became due meanwhile. */
const TICK_MS = 2;
const LONGEST_SLEEP_MS = 20;
/** A thread that was not scheduled for longer does not make up for it: its CPU stood still. */
const LONGEST_STEP_MS = 50;

const { index, definition, buffers } = workerData as VcpuThreadData;
const port = parentPort!;
const state = viewState(buffers);
const { control, signals, present, waits } = state;
const wakeAt = index * SIGNAL_WORDS + Signal.wake;
const awaitedAt = index * SIGNAL_WORDS + Signal.awaited;

const vcpu = new Vcpu({
  index,
  streams: streamsOf(definition),
  state,
  now: () => performance.now(),
  awaitPage,
});

function tell(message: VcpuMessage): void {
  port.postMessage(message);
}

function awaitPage(page: number): boolean {
  const since = performance.now();
  Atomics.store(signals, awaitedAt, page + 1);
  tell({ type: 'fault', page });
  for (;;) {
    const seen = Atomics.load(signals, wakeAt);
    const there = hasShared(present, page);
    if (!there && isRunning(control)) {
      Atomics.wait(signals, wakeAt, seen);
      continue;
    }
    Atomics.store(signals, awaitedAt, 0);
    if (there) countWait(performance.now() - since);
    return there;
  }
}

function countWait(ms: number): void {
  const at = index * WAIT_NUMBERS;
  waits[at + Wait.count] = waits[at + Wait.count]! + 1;
  waits[at + Wait.totalMs] = waits[at + Wait.totalMs]! + ms;
  waits[at + Wait.maxMs] = Math.max(waits[at + Wait.maxMs]!, ms);
}

/** One that was let run and paused again before it could notice has come to a halt, too. */
function standStill(): void {
  let told: number | undefined;
  for (;;) {
    const seen = Atomics.load(signals, wakeAt);
    const { run, runs } = runOf(control);
    if (run !== Run.paused) return;
    if (runs !== told) tell({ type: 'halted' });
    told = runs;
    Atomics.wait(signals, wakeAt, seen);
  }
}

function runUntilTold(): void {
  let last = performance.now();
  for (;;) {
    const seen = Atomics.load(signals, wakeAt);
    if (!isRunning(control)) return;
    const speed = (100 - Atomics.load(control, Control.throttle)) / 100;
    const now = performance.now();
    vcpu.advance(Math.min(now - last, LONGEST_STEP_MS) * speed);
    last = now;
    const next = vcpu.untilNext() / speed;
    Atomics.wait(signals, wakeAt, seen, Math.min(Math.max(next, TICK_MS), LONGEST_SLEEP_MS));
  }
}

for (;;) {
  const { run } = runOf(control);
  if (run === Run.ended) break;
  if (run === Run.paused) standStill();
  else runUntilTold();
}
port.close();
