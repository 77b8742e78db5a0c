/** The policy at work: feeds it what the guest and the link do, and carries out what it decides. */

import type { MigrationEvent } from '@vmferry/engine/events';
import type { SourceGuest, SourceItem } from '@vmferry/engine/guest';
import type { ChosenStrategy, MigrateRequest } from '@vmferry/engine/options';
import { chooseStrategy } from '@vmferry/engine/policy/choose-strategy';
import {
  type ConvergenceDecision,
  decide,
  defaultOnStall,
  type Goals,
  startConvergence,
} from '@vmferry/engine/policy/convergence';
import { finalRound } from '@vmferry/engine/policy/final-round';
import { postcopyNow } from '@vmferry/engine/policy/hybrid';
import { type BytesPerSec, bytes, bytesPerSec, millis } from '@vmferry/engine/units';

const SAMPLE_MS = 200;
/** Where the one live round may end in post-copy: there is only this one moment to choose it. */
const FINAL_SAMPLE_MS = 40;
const ONE_ROUND_WHY =
  'The end of the first round: this QEMU emulates the CPU (TCG before 9.0), and its dirty log misses writes in later rounds.';

export interface SteeringOptions {
  readonly guest: SourceGuest;
  readonly request: MigrateRequest;
  readonly memoryBytes: number;
  /** See `GuestDescription`. */
  readonly oneLiveRound: boolean;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
  /** Content bytes of raw pages that the destination has taken so far, and pages without content. */
  readonly delivered: () => { readonly contentBytes: number; readonly zeroPages: number };
  /** Content bytes that the hypervisor has handed over and the destination has not taken. */
  readonly held: () => number;
  readonly emit: (event: MigrationEvent) => void;
  readonly progress: (sample: ProgressSample) => void;
  readonly onSwitchover: (why: string) => void;
  readonly onStrategy: (strategy: ChosenStrategy) => void;
  readonly onAbort: (code: 'E_STALLED' | 'E_DEADLINE', why: string) => void;
  readonly onFailure: (error: unknown) => void;
}

export interface ProgressSample {
  readonly round: number;
  readonly remainingBytes: number;
  readonly dirtyBytesPerSec: number;
  readonly bandwidthBytesPerSec: number;
  readonly expectedDowntimeMs: number;
}

type Convergence = ReturnType<typeof startConvergence>;

export class Steering {
  readonly #options: SteeringOptions;
  #convergence: Convergence;
  /** `undecided` is auto before the first round's end. */
  #strategy: ChosenStrategy | 'undecided';
  #timer: NodeJS.Timeout | undefined;
  #over = false;
  #sampling = false;
  #last = { at: performance.now(), contentBytes: 0, zeroPages: 0 };
  #bandwidth: BytesPerSec = bytesPerSec(0);
  #previousRemaining: number | undefined;
  #rounds = 0;
  #began = 0;
  #dirtyRate: BytesPerSec | undefined;

  constructor(options: SteeringOptions) {
    this.#options = options;
    const { request } = options;
    const possible = options.postcopyObstacle === undefined;
    this.#strategy = request.strategy === 'auto' ? 'undecided' : request.strategy;
    const goals: Goals = {
      maxDowntimeMs: request.maxDowntimeMs,
      deadlineMs: request.deadlineMs,
      onStall: request.onStall ?? defaultOnStall(request.strategy, possible),
    };
    this.#convergence = startConvergence(goals, millis(performance.now()));
    if (this.#strategy !== 'undecided') options.onStrategy(this.#strategy);
  }

  /** The guest's stream has begun. */
  begin(): void {
    if (this.#strategy === 'postcopy') {
      this.#startPostcopy('Post-copy was asked for: the guest moves first, its memory follows.');
      return;
    }
    if (this.#options.oneLiveRound) this.#beginOneRound();
    const choosing = this.#options.oneLiveRound && this.#strategy !== 'precopy';
    this.#timer = setInterval(() => void this.#sample(), choosing ? FINAL_SAMPLE_MS : SAMPLE_MS);
  }

  /** The guest stops at the end of its first round whatever is decided; only post-copy can come before. */
  #beginOneRound(): void {
    this.#began = performance.now();
    this.#options.onSwitchover(ONE_ROUND_WHY);
    if (this.#strategy !== 'undecided') return;
    this.#options.guest.measureDirtyRate().then(
      (rate) => {
        this.#dirtyRate = rate;
      },
      (error: unknown) => this.#options.onFailure(error),
    );
  }

  /** Nothing is decided any more. */
  stop(): void {
    this.#over = true;
    clearInterval(this.#timer);
  }

  #decideFinalRound({
    round,
    remainingBytes,
  }: {
    readonly round: number;
    readonly remainingBytes: number;
  }): void {
    const { request, memoryBytes, postcopyObstacle } = this.#options;
    const decision = finalRound({
      strategy: this.#strategy,
      memoryBytes,
      remainingBytes,
      elapsedMs: performance.now() - this.#began,
      dirtyBytesPerSec: this.#dirtyRate,
      bandwidthBytesPerSec: this.#bandwidth,
      maxDowntimeMs: request.maxDowntimeMs,
      postcopyPossible: postcopyObstacle === undefined,
    });
    this.#options.progress({
      round,
      remainingBytes,
      dirtyBytesPerSec: this.#dirtyRate ?? 0,
      bandwidthBytesPerSec: this.#bandwidth,
      expectedDowntimeMs: decision.expectedDowntimeMs,
    });
    if (decision.action === 'wait') return;
    if (decision.action === 'start-postcopy') {
      this.#startPostcopy(decision.why);
      return;
    }
    this.stop();
    if (this.#strategy === 'undecided') this.#options.onStrategy('precopy');
    this.#tell('switch over at the end of the round', decision.why);
    this.#options.onSwitchover(decision.why);
  }

  onRoundEnd(ended: Extract<SourceItem, { type: 'round-end' }>): void {
    if (this.#over || this.#options.oneLiveRound) return;
    this.#measure();
    const item = { ...ended, remainingBytes: bytes(ended.remainingBytes + this.#options.held()) };
    this.#rounds += 1;
    const previousBytes = this.#previousRemaining;
    this.#previousRemaining = item.remainingBytes;
    if (this.#strategy === 'undecided') this.#choose(item.dirtyBytesPerSec);
    if (this.#strategy === 'hybrid') {
      const why = postcopyNow({
        rounds: this.#rounds,
        memoryBytes: this.#options.memoryBytes,
        remainingBytes: item.remainingBytes,
        previousBytes,
        bandwidthBytesPerSec: this.#bandwidth,
      });
      if (why !== undefined) {
        this.#startPostcopy(why);
        return;
      }
      this.#tell('another round', `the dirty memory still falls fast: ${item.remainingBytes} bytes are left`);
      return;
    }
    this.#decide('round-end', item);
  }

  #choose(dirtyBytesPerSec: number): void {
    const { request, memoryBytes, postcopyObstacle } = this.#options;
    const { strategy, why } = chooseStrategy({
      memoryBytes,
      dirtyBytesPerSec,
      linkBytesPerSec: this.#bandwidth > 0 ? this.#bandwidth : undefined,
      postcopyPossible: postcopyObstacle === undefined,
      postcopyObstacle,
      maxDowntimeMs: request.maxDowntimeMs,
      deadlineMs: request.deadlineMs,
    });
    this.#strategy = strategy;
    this.#options.onStrategy(strategy);
    this.#tell(`strategy ${strategy}`, why, strategy);
  }

  async #sample(): Promise<void> {
    if (this.#sampling || this.#over) return;
    this.#sampling = true;
    try {
      const { remainingBytes, ...progress } = await this.#options.guest.progress();
      if (this.#over) return;
      this.#measure();
      const seen = { ...progress, remainingBytes: bytes(remainingBytes + this.#options.held()) };
      if (this.#options.oneLiveRound) this.#decideFinalRound(seen);
      else this.#decide('progress', seen);
    } catch (error) {
      this.#options.onFailure(error);
    } finally {
      this.#sampling = false;
    }
  }

  /** Bandwidth since the last look, where what was sent says anything about the link. */
  #measure(): BytesPerSec | undefined {
    const now = performance.now();
    const passedMs = now - this.#last.at;
    if (passedMs < SAMPLE_MS / 4) return undefined;
    const { contentBytes, zeroPages } = this.#options.delivered();
    const content = contentBytes - this.#last.contentBytes;
    const zeros = (zeroPages - this.#last.zeroPages) * 4096;
    this.#last = { at: now, contentBytes, zeroPages };
    if (zeros > content) return undefined;
    this.#bandwidth = bytesPerSec((content * 1000) / passedMs);
    return this.#bandwidth;
  }

  #decide(
    type: 'progress' | 'round-end',
    seen: Pick<Extract<SourceItem, { type: 'round-end' }>, 'round' | 'remainingBytes' | 'dirtyBytesPerSec'>,
  ): void {
    const { round, remainingBytes, dirtyBytesPerSec } = seen;
    const { state, decision } = decide(
      this.#convergence,
      {
        type,
        round,
        remainingBytes,
        dirtyBytesPerSec,
        ...(this.#bandwidth > 0 ? { bandwidthBytesPerSec: this.#bandwidth } : {}),
      },
      millis(performance.now()),
    );
    this.#convergence = state;
    this.#options.progress({
      round,
      remainingBytes,
      dirtyBytesPerSec,
      bandwidthBytesPerSec: this.#bandwidth,
      expectedDowntimeMs: decision.expectedDowntimeMs,
    });
    if (type === 'round-end' || decision.action !== 'continue') this.#act(decision);
  }

  #act(decision: ConvergenceDecision): void {
    switch (decision.action) {
      case 'continue':
        this.#tell('another round', decision.why);
        return;
      case 'switchover':
        this.stop();
        this.#tell('switch over', decision.why);
        this.#options.onSwitchover(decision.why);
        this.#do(this.#options.guest.switchover());
        return;
      case 'start-postcopy':
        if (this.#options.postcopyObstacle === undefined) this.#startPostcopy(decision.why);
        else this.#abort(`${decision.why} Post-copy is not possible: ${this.#options.postcopyObstacle}.`);
        return;
      case 'throttle':
        this.#tell(`throttle the guest by ${decision.percent} %`, decision.why);
        this.#do(this.#options.guest.setThrottle(decision.percent));
        return;
      case 'abort':
        this.#abort(decision.why);
        return;
    }
  }

  #startPostcopy(why: string): void {
    this.stop();
    this.#tell('start post-copy', why);
    this.#options.onSwitchover(why);
    if (this.#strategy !== 'postcopy') this.#options.onStrategy('hybrid');
    this.#do(this.#options.guest.startPostcopy());
  }

  #abort(why: string): void {
    this.stop();
    this.#tell('give up', why);
    this.#options.onAbort('E_STALLED', why);
  }

  #tell(what: string, why: string, strategy?: ChosenStrategy): void {
    this.#options.emit({ type: 'decision', what, why, ...(strategy ? { strategy } : {}) });
  }

  #do(work: Promise<void>): void {
    work.catch((error: unknown) => this.#options.onFailure(error));
  }
}
