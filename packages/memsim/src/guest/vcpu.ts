/**
 * A vCPU: does the accesses of the workload that are its own. Access n of a stream is that of vCPU n modulo
 * their number, so that each knows its accesses by how many it has done.
 */
import { hash } from '../random.ts';
import type { Stream } from '../workload/streams.ts';
import { hasShared, setShared } from './bitmap.ts';
import { Control, type GuestState, isRunning, MAX_GENERATION, positionOf } from './shared.ts';

/** Streams are kept in step to within this, in milliseconds of the workload's clock. */
const STEP_MS = 1;
/** One vCPU that cannot keep up looks around after this time, and the workload's clock waits for it. */
const BUDGET_MS = 20;
const LOOK_EVERY = 256;

export interface VcpuOptions {
  readonly index: number;
  readonly streams: readonly Stream[];
  readonly state: GuestState;
  /** Milliseconds that never go back. */
  readonly now: () => number;
  /** Returns when the page is there; false when the vCPU is to stop first. */
  readonly awaitPage: (page: number) => boolean;
}

export class Vcpu {
  readonly #options: VcpuOptions;
  readonly #position: number;
  readonly #chain: number;

  constructor(options: VcpuOptions) {
    this.#options = options;
    const { state, index, streams } = options;
    this.#position = positionOf(state.buffers, index);
    this.#chain = index * streams.length;
  }

  /** Does what is due in the next `ms` of the workload's clock, as far as it gets. */
  advance(ms: number): void {
    const { state, now } = this.#options;
    const { positions } = state;
    const until = positions[this.#position]! + ms;
    const deadline = now() + BUDGET_MS;
    while (positions[this.#position]! < until) {
      const at = Math.min(until, positions[this.#position]! + STEP_MS);
      if (!this.#accessAllDue(at, deadline)) return;
      positions[this.#position] = at;
    }
  }

  /** Milliseconds of the workload's clock until the next access is due; infinite if none ever is. */
  untilNext(): number {
    const { streams, index, state } = this.#options;
    const { vcpus } = state.buffers;
    let next = Number.POSITIVE_INFINITY;
    for (const [which, { schedule }] of streams.entries()) {
      const done = state.positions[this.#position + 1 + which]!;
      next = Math.min(next, schedule.time(done * vcpus + index));
    }
    return Math.max(0, next - state.positions[this.#position]!);
  }

  #accessAllDue(at: number, deadline: number): boolean {
    const { streams } = this.#options;
    for (const [which, stream] of streams.entries()) {
      if (!this.#accessDue(which, stream, at, deadline)) return false;
    }
    return true;
  }

  #accessDue(which: number, stream: Stream, at: number, deadline: number): boolean {
    const { state, index, now } = this.#options;
    const { positions, control, chains, buffers } = state;
    const place = this.#position + 1 + which;
    const due = stream.schedule.due(at);
    let done = positions[place]!;
    for (let n = done * buffers.vcpus + index; n < due; n += buffers.vcpus) {
      const page = stream.page(n);
      if (!this.#access(stream.access, page)) return false;
      done += 1;
      positions[place] = done;
      chains[this.#chain + which] = chained(chains[this.#chain + which]!, page, n);
      if (done % LOOK_EVERY !== 0) continue;
      if (!isRunning(control) || now() > deadline) return false;
    }
    return true;
  }

  #access(access: Stream['access'], page: number): boolean {
    const { state, awaitPage } = this.#options;
    if (Atomics.load(state.control, Control.demand) === 1 && !hasShared(state.present, page)) {
      if (!awaitPage(page)) return false;
    }
    if (access === 'write') writePage(state, page);
    return true;
  }
}

/** The bytes of a page change, and then the log says so. */
export function writePage({ generations, dirty }: GuestState, page: number): void {
  // What is nobody's, or no generation's, stays that.
  if (Atomics.load(generations, page) < MAX_GENERATION) Atomics.add(generations, page, 1);
  setShared(dirty, page);
}

/** What a stream's accesses come to with one more. */
export function chained(chain: number, page: number, n: number): number {
  return hash(chain, page, n, n / 0x1_0000_0000);
}
