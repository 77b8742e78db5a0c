/**
 * The memory that a guest's threads share. Everything about a page is in one word: its generation, from which
 * its bytes follow (see `content.ts`), so that 16 GiB of guest take 16 MiB here.
 *
 * A vCPU writes a page by raising its generation, and then sets its bit in the dirty log. Whoever sends pages
 * takes the bit first and reads the generation afterwards: a write is in what is sent, or in the log, or in both.
 */

/** In the place of a generation. */
export const Content = {
  /** Never received: what is there is nobody's. */
  absent: 0xffff_ffff,
  /** Has bytes that are of no generation; they are kept beside. */
  foreign: 0xffff_fffe,
} as const;

/** The largest generation. */
export const MAX_GENERATION = 0xffff_fff0;

export const Run = { paused: 0, running: 1, ended: 2 } as const;

/** Words of `control`. */
export const Control = {
  /** One of `Run`, and how often the guest was let run: see `runOf`. */
  run: 0,
  /** By how much the vCPUs are slowed down, 0 to 99 %. */
  throttle: 1,
  /** 1 while pages may be missing, so that every access has to look. */
  demand: 2,
} as const;
const CONTROL_WORDS = 4;

/**
 * Both are one word, so that a vCPU which missed that the guest ran for a moment knows that it did, and when it
 * was told to stand still again.
 */
export function runWord(run: number, runs: number): number {
  return run | (runs << 2);
}

export function runOf(control: Int32Array): { readonly run: number; readonly runs: number } {
  const word = Atomics.load(control, Control.run);
  return { run: word & 3, runs: word >> 2 };
}

export function isRunning(control: Int32Array): boolean {
  return (Atomics.load(control, Control.run) & 3) === Run.running;
}

/** Words of a vCPU in `signals`. */
export const Signal = {
  /** Counts up whenever the thread should look around; it sleeps on this. */
  wake: 0,
  /** The page that it waits for, plus 1; 0 if none. */
  awaited: 1,
} as const;
export const SIGNAL_WORDS = 16;

/** Numbers of a vCPU in `waits`. */
export const Wait = { count: 0, totalMs: 1, maxMs: 2 } as const;
export const WAIT_NUMBERS = 4;

/** What a thread is given. */
export interface SharedBuffers {
  readonly pages: number;
  readonly vcpus: number;
  readonly streams: number;
  readonly generations: SharedArrayBuffer;
  readonly dirty: SharedArrayBuffer;
  readonly present: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly signals: SharedArrayBuffer;
  readonly positions: SharedArrayBuffer;
  readonly chains: SharedArrayBuffer;
  readonly waits: SharedArrayBuffer;
}

/** The same as arrays. */
export interface GuestState {
  readonly buffers: SharedBuffers;
  /** A page's generation, or one of `Content`. */
  readonly generations: Uint32Array;
  /** One bit a page: written since the bit was taken. */
  readonly dirty: Uint32Array;
  /** One bit a page: has arrived. Counts only while `Control.demand` is set. */
  readonly present: Uint32Array;
  readonly control: Int32Array;
  /** `SIGNAL_WORDS` for each vCPU. */
  readonly signals: Int32Array;
  /** For each vCPU: the workload's clock in milliseconds, then its accesses of each stream. */
  readonly positions: Float64Array;
  /** For each vCPU and stream: what all its accesses in their order come to. */
  readonly chains: Uint32Array;
  /** `WAIT_NUMBERS` for each vCPU: how long it waited for missing pages. */
  readonly waits: Float64Array;
}

export function allocateState(pages: number, vcpus: number, streams: number): GuestState {
  const words = (count: number): SharedArrayBuffer => new SharedArrayBuffer(count * 4);
  const numbers = (count: number): SharedArrayBuffer => new SharedArrayBuffer(count * 8);
  const bitmap = Math.ceil(pages / 32);
  return viewState({
    pages,
    vcpus,
    streams,
    generations: words(pages),
    dirty: words(bitmap),
    present: words(bitmap),
    control: words(CONTROL_WORDS),
    signals: words(vcpus * SIGNAL_WORDS),
    positions: numbers(vcpus * (1 + streams)),
    chains: words(vcpus * streams),
    waits: numbers(vcpus * WAIT_NUMBERS),
  });
}

export function viewState(buffers: SharedBuffers): GuestState {
  return {
    buffers,
    generations: new Uint32Array(buffers.generations),
    dirty: new Uint32Array(buffers.dirty),
    present: new Uint32Array(buffers.present),
    control: new Int32Array(buffers.control),
    signals: new Int32Array(buffers.signals),
    positions: new Float64Array(buffers.positions),
    chains: new Uint32Array(buffers.chains),
    waits: new Float64Array(buffers.waits),
  };
}

/** Where a vCPU's numbers begin in `positions`. */
export function positionOf({ streams }: SharedBuffers, vcpu: number): number {
  return vcpu * (1 + streams);
}
