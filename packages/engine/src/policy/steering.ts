/**
 * The policy over a whole migration: what the guest and the link do goes in, what is to be done comes out.
 * Sans I/O: the source agent drives it by its timers, the simulator in virtual time.
 */
import type { ChosenStrategy, MigrateRequest } from '../options.ts';
import { type Bytes, type BytesPerSec, bytesPerSec, type Millis, PAGE_BYTES, type Round } from '../units.ts';
import { chooseStrategy } from './choose-strategy.ts';
import { type ConvergenceDecision, decide, defaultOnStall, startConvergence } from './convergence.ts';
import { finalRound } from './final-round.ts';
import { afterHeadStart, type HeadStart, headStartOf } from './head-start.ts';
import { postcopyNow } from './hybrid.ts';

const SAMPLE_MS = 200;
/** Where post-copy may have to begin within a round: there is only this one moment for it. */
const FINAL_SAMPLE_MS = 40;
/** A shorter time says nothing about the link. */
const LEAST_MEASURED_MS = SAMPLE_MS / 4;
const ONE_ROUND_WHY =
  'The end of the first round: this QEMU emulates the CPU (TCG before 9.0), and its dirty log misses writes in later rounds.';

export interface SteeringFacts {
  readonly request: Pick<
    MigrateRequest,
    'strategy' | 'maxDowntimeMs' | 'deadlineMs' | 'onStall' | 'headStartMs'
  >;
  readonly memoryBytes: number;
  /** See `GuestDescription`. */
  readonly oneLiveRound: boolean;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
}

/** Totals so far: content bytes of raw pages that the destination has taken, and pages without content. */
export interface Delivered {
  readonly contentBytes: number;
  readonly zeroPages: number;
}

/** What the guest knows of its memory at a round's end or in between. */
export interface Seen {
  readonly round: Round;
  readonly remainingBytes: Bytes;
  readonly dirtyBytesPerSec: BytesPerSec;
}

export interface ProgressSample {
  readonly round: number;
  readonly remainingBytes: number;
  readonly dirtyBytesPerSec: number;
  readonly bandwidthBytesPerSec: number;
  readonly expectedDowntimeMs: number;
}

/** In the order in which they are to be carried out. */
export type SteeringAction =
  | { readonly type: 'strategy'; readonly strategy: ChosenStrategy }
  | { readonly type: 'progress'; readonly sample: ProgressSample }
  /** For the operator: what is done, and why. */
  | {
      readonly type: 'tell';
      readonly what: string;
      readonly why: string;
      readonly strategy?: ChosenStrategy;
    }
  /** Why the guest moves when it does; a later one replaces it. */
  | { readonly type: 'reason'; readonly why: string }
  | { readonly type: 'measure-dirty-rate' }
  | { readonly type: 'switchover' }
  | { readonly type: 'start-postcopy' }
  | { readonly type: 'throttle'; readonly percent: number }
  | { readonly type: 'abort'; readonly why: string };

export class SteeringPolicy {
  readonly #facts: SteeringFacts;
  #convergence: ReturnType<typeof startConvergence>;
  /** `undecided` is auto before the first round's end. */
  #strategy: ChosenStrategy | 'undecided';
  /** What goes ahead of the guest, where post-copy was asked for. */
  readonly #headStart: HeadStart | undefined;
  #over = false;
  #last: Delivered & { readonly at: Millis };
  #bandwidth: BytesPerSec = bytesPerSec(0);
  #previousRemaining: number | undefined;
  #rounds = 0;
  #began: Millis;
  #dirtyRate: BytesPerSec | undefined;

  /** `now` and all later ones are stamps of one clock. */
  constructor(facts: SteeringFacts, now: Millis) {
    this.#facts = facts;
    this.#began = now;
    this.#last = { at: now, contentBytes: 0, zeroPages: 0 };
    const { strategy, maxDowntimeMs, deadlineMs, onStall } = facts.request;
    this.#strategy = strategy === 'auto' ? 'undecided' : strategy;
    this.#headStart = strategy === 'postcopy' ? headStartOf(facts.request, facts.memoryBytes) : undefined;
    this.#convergence = startConvergence(
      { maxDowntimeMs, deadlineMs, onStall: onStall ?? defaultOnStall(strategy, this.#postcopyPossible) },
      now,
    );
  }

  /** Undefined before `auto` has chosen. */
  get strategy(): ChosenStrategy | undefined {
    return this.#strategy === 'undecided' ? undefined : this.#strategy;
  }

  /** What may go before the guest, in post-copy; undefined: nothing does. */
  get headStart(): HeadStart | undefined {
    return this.#headStart;
  }

  /**
   * Whether what was read is let arrive before post-copy begins. Not at the end of the one live round, which is near:
   * while nothing is read the hypervisor could reach it, and stop the guest by itself.
   */
  get landsFirst(): boolean {
    return !this.#facts.oneLiveRound || this.#headStart !== undefined;
  }

  /** Nothing is decided any more. */
  get over(): boolean {
    return this.#over;
  }

  /** How often `sample` is to be called, in milliseconds. */
  get sampleMs(): number {
    const choosing = this.#facts.oneLiveRound && this.#strategy !== 'precopy';
    return choosing || this.#headStart ? FINAL_SAMPLE_MS : SAMPLE_MS;
  }

  /** The guest's stream has begun. */
  begin(now: Millis): SteeringAction[] {
    if (this.#strategy === 'postcopy') {
      this.#began = now;
      if (this.#headStart) return [];
      return this.#startPostcopy('Post-copy was asked for: the guest moves first, its memory follows.');
    }
    if (!this.#facts.oneLiveRound) return [];
    // It stops at the end of its first round whatever is decided; only post-copy can come before.
    this.#began = now;
    const reason: SteeringAction = { type: 'reason', why: ONE_ROUND_WHY };
    return this.#strategy === 'undecided' ? [reason, { type: 'measure-dirty-rate' }] : [reason];
  }

  stop(): void {
    this.#over = true;
  }

  /** As much as may go before the guest has gone. */
  headStartOver(): SteeringAction[] {
    if (this.#over || !this.#headStart) return [];
    return this.#startPostcopy(afterHeadStart(this.#headStart));
  }

  /** The answer to `measure-dirty-rate`. */
  dirtyRateMeasured(rate: BytesPerSec | undefined): void {
    this.#dirtyRate = rate;
  }

  roundEnd(seen: Seen, delivered: Delivered, now: Millis): SteeringAction[] {
    if (this.#headStart) return this.headStartOver();
    if (this.#over || this.#facts.oneLiveRound) return [];
    this.#measure(delivered, now);
    this.#rounds += 1;
    const previousBytes = this.#previousRemaining;
    this.#previousRemaining = seen.remainingBytes;
    const chosen = this.#strategy === 'undecided' ? this.#choose(seen.dirtyBytesPerSec) : [];
    if (this.#strategy !== 'hybrid') return [...chosen, ...this.#decide('round-end', seen, now)];
    const why = postcopyNow({
      rounds: this.#rounds,
      memoryBytes: this.#facts.memoryBytes,
      remainingBytes: seen.remainingBytes,
      previousBytes,
      bandwidthBytesPerSec: this.#bandwidth,
    });
    if (why !== undefined) return [...chosen, ...this.#startPostcopy(why)];
    const left = `the dirty memory still falls fast: ${seen.remainingBytes} bytes are left`;
    return [...chosen, { type: 'tell', what: 'another round', why: left }];
  }

  /** Between round ends. */
  sample(seen: Seen, delivered: Delivered, now: Millis): SteeringAction[] {
    if (this.#over) return [];
    if (this.#headStart) return this.#duringHeadStart(this.#headStart, seen, now);
    this.#measure(delivered, now);
    return this.#facts.oneLiveRound ? this.#decideFinalRound(seen, now) : this.#decide('progress', seen, now);
  }

  #duringHeadStart({ ms, pages }: HeadStart, { remainingBytes }: Seen, now: Millis): SteeringAction[] {
    const gone = this.#facts.memoryBytes - remainingBytes;
    return now - this.#began >= ms || gone >= pages * PAGE_BYTES ? this.headStartOver() : [];
  }

  get #postcopyPossible(): boolean {
    return this.#facts.postcopyObstacle === undefined;
  }

  /** Bandwidth since the last look, where what was sent says anything about the link. */
  #measure({ contentBytes, zeroPages }: Delivered, now: Millis): void {
    const passedMs = now - this.#last.at;
    if (passedMs < LEAST_MEASURED_MS) return;
    const content = contentBytes - this.#last.contentBytes;
    const zeros = (zeroPages - this.#last.zeroPages) * PAGE_BYTES;
    this.#last = { at: now, contentBytes, zeroPages };
    if (zeros > content) return;
    this.#bandwidth = bytesPerSec((content * 1000) / passedMs);
  }

  #choose(dirtyBytesPerSec: number): SteeringAction[] {
    const { request, memoryBytes, postcopyObstacle } = this.#facts;
    const { strategy, why } = chooseStrategy({
      memoryBytes,
      dirtyBytesPerSec,
      linkBytesPerSec: this.#bandwidth > 0 ? this.#bandwidth : undefined,
      postcopyPossible: this.#postcopyPossible,
      postcopyObstacle,
      maxDowntimeMs: request.maxDowntimeMs,
      deadlineMs: request.deadlineMs,
    });
    this.#strategy = strategy;
    return [
      { type: 'strategy', strategy },
      { type: 'tell', what: `strategy ${strategy}`, why, strategy },
    ];
  }

  #decideFinalRound(seen: Seen, now: Millis): SteeringAction[] {
    const { request, memoryBytes } = this.#facts;
    const decision = finalRound({
      strategy: this.#strategy,
      memoryBytes,
      remainingBytes: seen.remainingBytes,
      elapsedMs: now - this.#began,
      dirtyBytesPerSec: this.#dirtyRate,
      bandwidthBytesPerSec: this.#bandwidth,
      maxDowntimeMs: request.maxDowntimeMs,
      postcopyPossible: this.#postcopyPossible,
    });
    const progress = this.#progress(
      { ...seen, dirtyBytesPerSec: this.#dirtyRate ?? bytesPerSec(0) },
      decision.expectedDowntimeMs,
    );
    if (decision.action === 'wait') return [progress];
    if (decision.action === 'start-postcopy') return [progress, ...this.#startPostcopy(decision.why)];
    this.#over = true;
    return [
      progress,
      ...(this.#strategy === 'undecided' ? [{ type: 'strategy', strategy: 'precopy' } as const] : []),
      { type: 'tell', what: 'switch over at the end of the round', why: decision.why },
      { type: 'reason', why: decision.why },
    ];
  }

  #decide(type: 'progress' | 'round-end', seen: Seen, now: Millis): SteeringAction[] {
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
      now,
    );
    this.#convergence = state;
    const progress = this.#progress(seen, decision.expectedDowntimeMs);
    const told = type === 'round-end' || decision.action !== 'continue';
    return told ? [progress, ...this.#act(decision)] : [progress];
  }

  #progress(seen: Seen, expectedDowntimeMs: number): SteeringAction {
    const { round, remainingBytes, dirtyBytesPerSec } = seen;
    return {
      type: 'progress',
      sample: {
        round,
        remainingBytes,
        dirtyBytesPerSec,
        bandwidthBytesPerSec: this.#bandwidth,
        expectedDowntimeMs,
      },
    };
  }

  #act(decision: ConvergenceDecision): SteeringAction[] {
    const { why } = decision;
    switch (decision.action) {
      case 'continue':
        return [{ type: 'tell', what: 'another round', why }];
      case 'switchover':
        this.#over = true;
        return [{ type: 'tell', what: 'switch over', why }, { type: 'reason', why }, { type: 'switchover' }];
      case 'start-postcopy':
        return this.#postcopyPossible
          ? this.#startPostcopy(why)
          : this.#abort(`${why} Post-copy is not possible: ${this.#facts.postcopyObstacle}.`);
      case 'throttle':
        return [
          { type: 'tell', what: `throttle the guest by ${decision.percent} %`, why },
          { type: 'throttle', percent: decision.percent },
        ];
      case 'abort':
        return this.#abort(why);
    }
  }

  #startPostcopy(why: string): SteeringAction[] {
    this.#over = true;
    return [
      { type: 'tell', what: 'start post-copy', why },
      { type: 'reason', why },
      ...(this.#strategy === 'postcopy' ? [] : [{ type: 'strategy', strategy: 'hybrid' } as const]),
      { type: 'start-postcopy' },
    ];
  }

  #abort(why: string): SteeringAction[] {
    this.#over = true;
    return [
      { type: 'tell', what: 'give up', why },
      { type: 'abort', why },
    ];
  }
}
