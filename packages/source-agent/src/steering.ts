/** The policy at work: feeds it what the guest and the link do, and carries out what it decides. */

import { setTimeout as sleep } from 'node:timers/promises';
import { machineNow } from '@vmferry/agent-core/machine';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { SourceGuest, SourceItem } from '@vmferry/engine/guest';
import type { ChosenStrategy, MigrateRequest } from '@vmferry/engine/options';
import { HEARD_MS, LANDING_MS } from '@vmferry/engine/policy/landing';
import type { Delivered } from '@vmferry/engine/policy/link-meter';
import {
  type ProgressSample,
  type Seen,
  type SteeringAction,
  SteeringPolicy,
} from '@vmferry/engine/policy/steering';
import { bytes } from '@vmferry/engine/units';
import { Gate } from './gate.ts';

export interface SteeringOptions {
  readonly guest: SourceGuest;
  readonly request: MigrateRequest;
  readonly memoryBytes: number;
  /** See `GuestDescription`. */
  readonly oneLiveRound: boolean;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
  /** Content bytes of raw pages that the destination has taken so far, and pages without content. */
  readonly delivered: () => Delivered;
  /** Content bytes that the hypervisor has handed over and the destination has not taken. */
  readonly held: () => number;
  /** Resolves when the destination has taken all that was handed over. */
  readonly landed: () => Promise<void>;
  readonly emit: (event: MigrationEvent) => void;
  readonly progress: (sample: ProgressSample) => void;
  readonly onSwitchover: (why: string) => void;
  readonly onStrategy: (strategy: ChosenStrategy) => void;
  readonly onAbort: (code: 'E_STALLED' | 'E_DEADLINE', why: string) => void;
  readonly onFailure: (error: unknown) => void;
}

export class Steering {
  readonly #options: SteeringOptions;
  readonly #policy: SteeringPolicy;
  #timer: NodeJS.Timeout | undefined;
  /** Closed where no more of the guest's memory is to be read for the moment. */
  readonly #reading = new Gate();
  #pagesRead = 0;
  #begun = false;
  #stopped = false;
  #sampling = false;
  /** What the guest was asked for last. Never rejects. */
  #asked: Promise<void> = Promise.resolve();

  constructor(options: SteeringOptions) {
    this.#options = options;
    const { request, memoryBytes, oneLiveRound, postcopyObstacle } = options;
    const throttlesItself = options.guest.setThrottle === undefined;
    this.#policy = new SteeringPolicy(
      { request, memoryBytes, oneLiveRound, postcopyObstacle, throttlesItself },
      machineNow(),
    );
    const { strategy } = this.#policy;
    if (strategy !== undefined) options.onStrategy(strategy);
  }

  /**
   * The hypervisor has begun, and nothing of its stream was read: what it sends before a post-copy begins would
   * only stand before the guest's state. Resolves when reading may begin.
   */
  async opened(): Promise<void> {
    if (this.#policy.strategy !== 'postcopy' || this.#policy.headStart) return;
    this.begin();
    await this.#asked;
  }

  /** The guest's stream has begun. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    this.#carryOut(this.#policy.begin(machineNow()));
    if (!this.#policy.over) this.#timer = setInterval(() => void this.#sample(), this.#policy.sampleMs);
  }

  /** Pages were read before post-copy. Resolves when more may be. */
  async mayGoOn(pages: number): Promise<void> {
    this.#pagesRead += pages;
    const { headStart } = this.#policy;
    if (headStart && this.#pagesRead >= headStart.pages) this.#carryOut(this.#policy.headStartOver());
    await this.#reading.passed();
  }

  /** Nothing is decided any more. */
  get over(): boolean {
    return this.#policy.over;
  }

  /** The hypervisor has stopped the guest to move it. */
  stopped(): void {
    this.#carryOut(this.#policy.stopped());
  }

  /** Gives up whatever was to be decided. */
  stop(): void {
    this.#stopped = true;
    this.#reading.open();
    this.#policy.stop();
    clearInterval(this.#timer);
  }

  onRoundEnd(item: Extract<SourceItem, { type: 'round-end' }>): void {
    this.#carryOut(this.#policy.roundEnd(this.#withHeld(item), this.#options.delivered(), machineNow()));
  }

  async #sample(): Promise<void> {
    if (this.#sampling || this.#policy.over) return;
    this.#sampling = true;
    try {
      const progress = await this.#options.guest.progress();
      this.#carryOut(this.#policy.sample(this.#withHeld(progress), this.#options.delivered(), machineNow()));
    } catch (error) {
      // One that sends its last pages answers only afterwards, and nobody waits for it.
      if (!this.#policy.over) this.#options.onFailure(error);
    } finally {
      this.#sampling = false;
    }
  }

  /** What is still in the agent's buffers has to cross the link as well. */
  #withHeld<T extends Seen>(seen: T): T {
    return { ...seen, remainingBytes: bytes(seen.remainingBytes + this.#options.held()) };
  }

  #carryOut(actions: readonly SteeringAction[]): void {
    if (this.#policy.over) clearInterval(this.#timer);
    for (const action of actions) this.#act(action);
  }

  #act(action: SteeringAction): void {
    const { guest, emit, onAbort, onStrategy, onSwitchover, progress } = this.#options;
    switch (action.type) {
      case 'strategy':
        onStrategy(action.strategy);
        return;
      case 'progress':
        progress(action.sample);
        return;
      case 'tell': {
        const { what, why, strategy } = action;
        emit({ type: 'decision', what, why, ...(strategy ? { strategy } : {}) });
        return;
      }
      case 'reason':
        onSwitchover(action.why);
        return;
      case 'measure-dirty-rate':
        this.#do(
          guest.measureDirtyRate().then(
            (rate) => this.#policy.dirtyRateMeasured(rate),
            // It is only not known. A hypervisor that ended is told by its driver.
            () => {},
          ),
        );
        return;
      case 'switchover':
        this.#do(this.#land(action.landsFirst, () => guest.switchover()));
        return;
      case 'start-postcopy':
        this.#do(this.#land(this.#policy.landsFirst, () => guest.startPostcopy()));
        return;
      case 'throttle':
        this.#do(guest.setThrottle!(action.percent));
        return;
      case 'abort':
        onAbort(action.code, action.why);
        return;
    }
  }

  /**
   * What was read comes before the guest's state: it is let arrive first, while the guest still runs, and no more
   * of it is read until the hypervisor has heard what it is asked for: it would write on for a while (QEMU for
   * 50 ms, as fast as it is read). Not for long, though: one that has come to its round's end writes the rest before
   * it answers anybody.
   */
  async #land(first: boolean, ask: () => Promise<void>): Promise<void> {
    const { landed } = this.#options;
    if (!first) {
      await ask();
      return;
    }
    this.#reading.close();
    try {
      await within(LANDING_MS, landed());
      // Given up meanwhile: it is rolled back.
      if (this.#stopped) return;
      const asked = ask();
      await within(HEARD_MS, asked);
      this.#reading.open();
      await asked;
    } finally {
      this.#reading.open();
    }
  }

  #do(work: Promise<void>): void {
    this.#asked = work.catch((error: unknown) => this.#options.onFailure(error));
  }
}

/** Resolves with the promise, or when so many milliseconds are over. Rejects as the promise does. */
async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  const over = new AbortController();
  try {
    await Promise.race([promise, sleep(ms, undefined, { signal: over.signal }).catch(() => {})]);
  } finally {
    over.abort();
  }
}
