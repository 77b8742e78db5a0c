/**
 * The simulated guest that leaves. It makes the rounds itself, as a hypervisor would.
 *
 *     idle ── open ──▶ precopy ── switchover ────▶ stopped ── state-complete ──▶ end
 *                         └────── startPostcopy ─▶ stopped ── state-complete ──▶ pages ──▶ end
 *     rollback, from anywhere before `forget`: the vCPUs run again
 */
import { GuestError } from '@vmferry/engine/errors';
import type {
  GuestDescription,
  PageBatch,
  PageRange,
  SourceGuest,
  SourceItem,
  SourcePlan,
  SourceProgress,
} from '@vmferry/engine/guest';
import {
  type Bytes,
  type BytesPerSec,
  bytes,
  bytesPerSec,
  millis,
  PAGE_BYTES,
  type Round,
  round,
} from '@vmferry/engine/units';
import { countShared, PagesToSend } from './bitmap.ts';
import { encodeHello, encodeMissing, encodeState } from './device-state.ts';
import type { SimulatedMachine } from './machine.ts';
import { PageBatches } from './page-batches.ts';

/** When nothing is dirty and nothing was decided: the next look. */
const EMPTY_ROUND_MS = 50;
/** A rate over less than this says little: the one before stands. */
const LEAST_RATE_MS = 20;

type Ending = 'switchover' | 'postcopy' | 'rollback';

export interface SimulatedSourceOptions {
  /** As people name it: "sim:web". */
  readonly uri: string;
  readonly machine: SimulatedMachine;
  /** The guest has left for good: it is ended, or kept and never run again. */
  readonly onLeft: (options: { destroy: boolean }) => Promise<void>;
  /** It left before: why it cannot be moved from here any more. */
  readonly left: () => boolean;
}

export class SimulatedSourceGuest implements SourceGuest {
  readonly gone: Promise<GuestError>;
  readonly #options: SimulatedSourceOptions;
  readonly #machine: SimulatedMachine;
  readonly #toSend: PagesToSend;
  #batches: { readonly precopy: PageBatches; readonly postcopy: PageBatches } | undefined;
  #wasRunning = false;
  #opened = false;
  #ending: Ending | undefined;
  #dead: GuestError | undefined;
  #round: Round = round(1);
  /** Ranges that were asked for while they could not be taken. */
  readonly #urgent: PageRange[] = [];
  #servesPages = false;
  #harvestedAt = 0;
  #dirtyRate = bytesPerSec(0);
  #pausing: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(options: SimulatedSourceOptions) {
    this.#options = options;
    this.#machine = options.machine;
    this.#toSend = new PagesToSend(options.machine.shape.pages);
    this.gone = options.machine.ended;
    void this.gone.then((error) => {
      this.#dead = error;
      this.#wake();
    });
  }

  describe(): Promise<GuestDescription> {
    this.#throwIfDead();
    return Promise.resolve(describeMachine(this.#options.uri, this.#machine));
  }

  blockers(): Promise<readonly GuestError[]> {
    this.#throwIfDead();
    if (!this.#options.left()) return Promise.resolve([]);
    return Promise.resolve([
      new GuestError(
        'E_GUEST_BLOCKED',
        `${this.#options.uri} has left this host and must not run here again`,
        'move it from the host where it is now',
      ),
    ]);
  }

  open(plan: SourcePlan): Promise<AsyncIterable<SourceItem>> {
    if (this.#opened) throw new Error('a source guest is opened once');
    this.#opened = true;
    this.#wasRunning = this.#machine.running;
    this.#batches = {
      precopy: new PageBatches(this.#machine, plan.batches.precopy, plan),
      postcopy: new PageBatches(this.#machine, plan.batches.postcopy, plan),
    };
    return Promise.resolve(this.#items());
  }

  async *#items(): AsyncGenerator<SourceItem> {
    const { shape, fingerprint } = this.#machine;
    yield { type: 'opaque', bytes: encodeHello(shape, fingerprint) };
    yield { type: 'ram-layout', layout: { blocks: describeMachine('', this.#machine).blocks } };
    this.#toSend.addAll();
    // Whatever was written so far goes with the first round.
    this.#emptyLog();
    for (;;) {
      yield* this.#sendRound();
      if (this.#ending !== undefined) break;
      yield this.#endRound();
      if (this.#toSend.size === 0) await this.#pause(EMPTY_ROUND_MS);
    }
    if (this.#rollingBack()) return;
    this.#pausing = this.#machine.pause();
    await this.#pausing;
    if (this.#rollingBack()) return;
    yield { type: 'stopped', atMs: millis(Date.now()) };
    this.#toSend.takeFrom(this.#machine.dirtyLog);
    if (this.#ending === 'postcopy') yield* this.#sendPostcopy();
    else yield* this.#sendRest();
  }

  /** Until the round is over or something was decided. */
  async *#sendRound(): AsyncGenerator<PageBatch> {
    while (this.#ending === undefined) {
      const batch = this.#batches!.precopy.gather(() => this.#toSend.next(), this.#round, 'bulk');
      if (!batch) return;
      yield batch;
      this.#throwIfDead();
    }
  }

  #endRound(): SourceItem {
    const dirty = this.#harvest();
    const ended = this.#round;
    this.#round = round(ended + 1);
    return {
      type: 'round-end',
      round: ended,
      remainingBytes: dirty,
      dirtyBytesPerSec: this.#dirtyRate,
    };
  }

  /** Everything that is left, with the guest stopped. */
  async *#sendRest(): AsyncGenerator<SourceItem> {
    for (;;) {
      const batch = this.#batches!.precopy.gather(() => this.#toSend.next(), this.#round, 'bulk');
      if (!batch) break;
      yield batch;
      this.#throwIfDead();
      if (this.#rollingBack()) return;
    }
    yield { type: 'opaque', bytes: encodeState(this.#machine.saveDevices()) };
    yield { type: 'state-complete', pagesFollow: false };
    yield { type: 'end' };
  }

  /** The state and the list of what is missing; then each of those pages, once. */
  async *#sendPostcopy(): AsyncGenerator<SourceItem> {
    for (const message of encodeMissing(this.#toSend.words)) yield { type: 'opaque', bytes: message };
    yield { type: 'opaque', bytes: encodeState(this.#machine.saveDevices()) };
    this.#servesPages = true;
    yield { type: 'state-complete', pagesFollow: true };
    for (;;) {
      this.#throwIfDead();
      if (this.#rollingBack()) return;
      const batch =
        this.#takeUrgent() ?? this.#batches!.postcopy.gather(() => this.#toSend.next(), this.#round, 'bulk');
      if (!batch) break;
      yield batch;
    }
    yield { type: 'end' };
  }

  #takeUrgent(): PageBatch | undefined {
    for (let range = this.#urgent[0]; range; range = this.#urgent[0]) {
      // A range may be more than a batch holds.
      const batch = this.#gatherRange(range);
      if (batch) return batch;
      this.#urgent.shift();
    }
    return undefined;
  }

  #gatherRange({ first, count }: PageRange): PageBatch | undefined {
    let page = first as number;
    const end = Math.min(first + count, this.#machine.shape.pages);
    const next = (): number | undefined => {
      while (page < end) {
        page += 1;
        if (this.#toSend.take(page - 1)) return page - 1;
      }
      return undefined;
    };
    return this.#batches!.postcopy.gather(next, this.#round, 'express');
  }

  /** The dirty log becomes what the next round has to send. Returns its size. */
  #harvest(): Bytes {
    const before = this.#toSend.size;
    this.#toSend.takeFrom(this.#machine.dirtyLog);
    const dirty = (this.#toSend.size - before) * PAGE_BYTES;
    const now = performance.now();
    this.#dirtyRate = rateOf(dirty, now - this.#harvestedAt) ?? this.#dirtyRate;
    this.#harvestedAt = now;
    return bytes(this.#toSend.size * PAGE_BYTES);
  }

  #emptyLog(): void {
    for (let at = 0; at < this.#machine.dirtyLog.length; at += 1)
      Atomics.store(this.#machine.dirtyLog, at, 0);
    this.#harvestedAt = performance.now();
  }

  /** For so long, or until something was decided; not at all where it was already. */
  #pause(ms: number): Promise<void> {
    if (this.#ending !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  progress(): Promise<SourceProgress> {
    this.#throwIfDead();
    const { dirtyLog } = this.#machine;
    const left = this.#servesPages ? this.#toSend.size : this.#toSend.sizeWith(dirtyLog);
    const dirty = countShared(dirtyLog) * PAGE_BYTES;
    return Promise.resolve({
      round: this.#round,
      remainingBytes: bytes(left * PAGE_BYTES),
      dirtyBytesPerSec: rateOf(dirty, performance.now() - this.#harvestedAt) ?? this.#dirtyRate,
    });
  }

  /** By comparing what every page is now with what it was before. */
  async measureDirtyRate(seconds = 1): Promise<BytesPerSec> {
    this.#throwIfDead();
    const { generations } = this.#machine;
    const before = Uint32Array.from(generations);
    const since = performance.now();
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    let written = 0;
    for (let page = 0; page < before.length; page += 1) {
      if (before[page] !== generations[page]) written += 1;
    }
    return bytesPerSec((written * PAGE_BYTES * 1000) / (performance.now() - since));
  }

  switchover(): Promise<void> {
    this.#decide('switchover');
    return Promise.resolve();
  }

  startPostcopy(): Promise<void> {
    this.#decide('postcopy');
    return Promise.resolve();
  }

  #decide(ending: Ending): void {
    if (this.#ending === undefined || ending === 'rollback') this.#ending = ending;
    this.#wake();
  }

  requestPages(ranges: readonly PageRange[]): void {
    this.#urgent.push(...ranges);
  }

  takePages(range: PageRange): PageBatch | 'sent' | undefined {
    if (!this.#servesPages || this.#rollingBack() || this.#dead) return undefined;
    return this.#gatherRange(range) ?? 'sent';
  }

  setPace(contentBytesPerSec: BytesPerSec): void {
    this.#batches?.precopy.setPace(contentBytesPerSec);
    this.#batches?.postcopy.setPace(contentBytesPerSec);
  }

  setThrottle(percent: number): Promise<void> {
    this.#machine.throttle(percent);
    return Promise.resolve();
  }

  /** A simulated destination answers nothing. */
  deliverReply(): void {}

  async rollback(): Promise<void> {
    this.#decide('rollback');
    this.#servesPages = false;
    await this.#pausing;
    this.#throwIfDead();
    this.#machine.throttle(0);
    if (this.#wasRunning) await this.#machine.run();
  }

  async forget(options: { destroy: boolean }): Promise<void> {
    this.#servesPages = false;
    await this.#options.onLeft(options);
  }

  close(): Promise<void> {
    this.#wake();
    return Promise.resolve();
  }

  #rollingBack(): boolean {
    return this.#ending === 'rollback';
  }

  #throwIfDead(): void {
    if (this.#dead) throw this.#dead;
  }
}

export function describeMachine(uri: string, machine: SimulatedMachine): GuestDescription {
  const { file } = machine.definition;
  return {
    kind: 'sim',
    name: uri,
    hypervisorVersion: 'memsim 1',
    machine: machineType(machine.fingerprint),
    vcpus: file.vcpus,
    memoryBytes: file.memory,
    blocks: [{ name: 'ram', bytes: file.memory, hostPageBytes: bytes(PAGE_BYTES) }],
    nics: [],
    running: machine.running,
    oneLiveRound: false,
  };
}

/** Both sides must have the same guest: what it is made from is its machine type. */
export function machineType(fingerprint: string): string {
  return `memsim-${fingerprint.slice(0, 16)}`;
}

function rateOf(amount: number, ms: number): BytesPerSec | undefined {
  return ms < LEAST_RATE_MS ? undefined : bytesPerSec((amount * 1000) / ms);
}
