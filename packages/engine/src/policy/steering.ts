/**
 * The policy over a whole migration: what the guest and the link do goes in, what is to be done comes out.
 * Sans I/O: the source agent drives it by its timers, the simulator in virtual time.
 */
import { sentences } from '../errors.ts';
import type { ChosenStrategy, MigrateRequest } from '../options.ts';
import { type Bytes, type BytesPerSec, bytesPerSec, type Millis, PAGE_BYTES, type Round } from '../units.ts';
import { chooseStrategy } from './choose-strategy.ts';
import { type ConvergenceDecision, decide, defaultOnStall, startConvergence } from './convergence.ts';
import { type Overdue, overdue } from './deadline.ts';
import { finalRound } from './final-round.ts';
import { afterHeadStart, type HeadStart, headStartOf } from './head-start.ts';
import { postcopyNow } from './hybrid.ts';
import { landingPays } from './landing.ts';
import { type Delivered, LinkMeter } from './link-meter.ts';

const SAMPLE_MS = 200;
/** Where post-copy may have to begin within a round: there is only this one moment for it. */
const FINAL_SAMPLE_MS = 40;
const ONE_ROUND_WHY =
  'The end of the first round: this QEMU emulates the CPU (TCG before 9.0), and its dirty log misses writes in later rounds.';
const BY_ITSELF_WHY = 'The hypervisor came to the end of its rounds before anything else was decided.';

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
  /** The hypervisor throttles the guest by itself, or not at all. */
  readonly throttlesItself?: boolean;
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
  /** Null where nothing tells. */
  readonly expectedDowntimeMs: number | null;
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
  /** `landsFirst`: what was read is let arrive before the guest is asked to stop. */
  | { readonly type: 'switchover'; readonly landsFirst: boolean }
  | { readonly type: 'start-postcopy' }
  | { readonly type: 'throttle'; readonly percent: number }
  | { readonly type: 'abort'; readonly code: 'E_STALLED' | 'E_DEADLINE'; readonly why: string };

export class SteeringPolicy {
  readonly #facts: SteeringFacts;
  #convergence: ReturnType<typeof startConvergence>;
  /** `undecided` is auto before the first round's end. */
  #strategy: ChosenStrategy | 'undecided';
  /** What goes ahead of the guest, where post-copy was asked for. */
  readonly #headStart: HeadStart | undefined;
  #over = false;
  readonly #link: LinkMeter;
  #previousRemaining: number | undefined;
  #rounds = 0;
  readonly #startedAt: Millis;
  /** The guest's stream. */
  #began: Millis;
  #dirtyRate: BytesPerSec | undefined;
  /** The operator was told that the deadline is over. */
  #toldOverdue = false;

  /** `now` and all later ones are stamps of one clock. */
  constructor(facts: SteeringFacts, now: Millis) {
    this.#facts = facts;
    this.#startedAt = now;
    this.#began = now;
    this.#link = new LinkMeter(now);
    const { strategy, maxDowntimeMs, deadlineMs, onStall } = facts.request;
    this.#strategy = strategy === 'auto' ? 'undecided' : strategy;
    this.#headStart = strategy === 'postcopy' ? headStartOf(facts.request, facts.memoryBytes) : undefined;
    this.#convergence = startConvergence(
      {
        ...{ maxDowntimeMs, deadlineMs },
        onStall: onStall ?? defaultOnStall(strategy, this.#postcopyPossible),
        throttlesItself: facts.throttlesItself ?? false,
      },
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
    const { request, oneLiveRound } = this.#facts;
    const { onStall } = request;
    const choosing =
      oneLiveRound && (this.#strategy !== 'precopy' || onStall === 'postcopy' || onStall === 'abort');
    return choosing || this.#headStart ? FINAL_SAMPLE_MS : SAMPLE_MS;
  }

  /** The guest's stream has begun. */
  begin(now: Millis): SteeringAction[] {
    this.#began = now;
    if (this.#strategy === 'postcopy') {
      if (this.#headStart) return [];
      return this.#startPostcopy('Post-copy was asked for: the guest moves first, its memory follows.');
    }
    if (!this.#facts.oneLiveRound) return [];
    // It stops at the end of its first round whatever is decided; only post-copy, or giving up, can come before.
    const reason: SteeringAction = { type: 'reason', why: ONE_ROUND_WHY };
    return this.#strategy === 'hybrid' ? [reason] : [reason, { type: 'measure-dirty-rate' }];
  }

  /** The hypervisor has stopped the guest to move it, whoever decided that. */
  stopped(): SteeringAction[] {
    const byItself = !this.#over && !this.#facts.oneLiveRound;
    this.#over = true;
    return [
      ...this.#settleOn('precopy', BY_ITSELF_WHY),
      ...(byItself ? [{ type: 'reason', why: BY_ITSELF_WHY } as const] : []),
    ];
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
    this.#link.look(delivered, now);
    this.#rounds += 1;
    const previousBytes = this.#previousRemaining;
    this.#previousRemaining = seen.remainingBytes;
    const chosen = this.#strategy === 'undecided' ? this.#choose(this.#firstDirtyRate(seen, now)) : [];
    if (this.#strategy !== 'hybrid') return [...chosen, ...this.#decide('round-end', seen, now)];
    const why = postcopyNow({
      rounds: this.#rounds,
      memoryBytes: this.#facts.memoryBytes,
      remainingBytes: seen.remainingBytes,
      previousBytes,
      bandwidthBytesPerSec: this.#link.bandwidth,
    });
    if (why !== undefined) return [...chosen, ...this.#startPostcopy(why)];
    const left = `the dirty memory still falls fast: ${seen.remainingBytes} bytes are left`;
    return [...chosen, { type: 'tell', what: 'another round', why: left }];
  }

  /** Between round ends. */
  sample(seen: Seen, delivered: Delivered, now: Millis): SteeringAction[] {
    if (this.#over) return [];
    this.#link.look(delivered, now);
    const late = this.#atDeadline(seen, now);
    if (this.#over) return late;
    if (this.#headStart) return this.#duringHeadStart(this.#headStart, seen, now);
    return this.#facts.oneLiveRound
      ? [...late, ...this.#decideFinalRound(seen, now)]
      : this.#decide('progress', seen, now);
  }

  #duringHeadStart({ ms, pages }: HeadStart, seen: Seen, now: Millis): SteeringAction[] {
    const gone = this.#facts.memoryBytes - seen.remainingBytes;
    const over = now - this.#began >= ms || gone >= pages * PAGE_BYTES;
    return [this.#progress(seen, 0), ...(over ? this.headStartOver() : [])];
  }

  #isPastDeadline(now: Millis): boolean {
    const { deadlineMs } = this.#facts.request;
    return deadlineMs !== undefined && now - this.#startedAt >= deadlineMs;
  }

  /** Nothing where the deadline is not over, or where it is for the judgement of rounds to say what is to be done. */
  #atDeadline(seen: Seen, now: Millis): SteeringAction[] {
    if (!this.#isPastDeadline(now)) return [];
    const decision: Overdue = overdue({
      elapsedMs: now - this.#startedAt,
      stoodMs: now - this.#link.takenAt,
      remainingBytes: seen.remainingBytes,
      rounds: this.#headStart ? 'none' : this.#facts.oneLiveRound ? 'one' : 'many',
      onStall: this.#convergence.goals.onStall,
      postcopyObstacle: this.#facts.postcopyObstacle,
    });
    switch (decision.action) {
      case 'judge-rounds':
        return [];
      case 'go-on': {
        if (this.#toldOverdue) return [];
        this.#toldOverdue = true;
        return [{ type: 'tell', what: 'switch over at the end of the round', why: decision.why }];
      }
      case 'start-postcopy':
        return this.#startPostcopy(decision.why);
      case 'abort':
        return this.#abort('E_DEADLINE', decision.why);
    }
  }

  get #postcopyPossible(): boolean {
    return this.#facts.postcopyObstacle === undefined;
  }

  /** Where the hypervisor has no figure yet (QEMU has none before a second), what the round left tells as much. */
  #firstDirtyRate({ remainingBytes, dirtyBytesPerSec }: Seen, now: Millis): number {
    const tookMs = now - this.#began;
    return dirtyBytesPerSec > 0 || tookMs <= 0 ? dirtyBytesPerSec : (remainingBytes * 1000) / tookMs;
  }

  #choose(dirtyBytesPerSec: number): SteeringAction[] {
    const { request, memoryBytes, postcopyObstacle } = this.#facts;
    const { strategy, why } = chooseStrategy({
      memoryBytes,
      dirtyBytesPerSec,
      linkBytesPerSec: this.#link.bandwidth > 0 ? this.#link.bandwidth : undefined,
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
      bandwidthBytesPerSec: this.#link.bandwidth,
      maxDowntimeMs: request.maxDowntimeMs,
      onStall: request.onStall,
      postcopyObstacle: this.#facts.postcopyObstacle,
    });
    const progress = this.#progress(
      { ...seen, dirtyBytesPerSec: this.#dirtyRate ?? bytesPerSec(0) },
      decision.expectedDowntimeMs,
    );
    if (decision.action === 'wait') return [progress];
    if (decision.action === 'start-postcopy') return [progress, ...this.#startPostcopy(decision.why)];
    if (decision.action === 'abort') return [progress, ...this.#abort('E_STALLED', decision.why)];
    this.#over = true;
    return [
      progress,
      ...this.#settleOn('precopy'),
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
        ...(this.#link.bandwidth > 0 ? { bandwidthBytesPerSec: this.#link.bandwidth } : {}),
      },
      now,
    );
    this.#convergence = state;
    const progress = this.#progress(seen, decision.expectedDowntimeMs);
    const told = type === 'round-end' || decision.action !== 'continue';
    return told ? [progress, ...this.#act(decision, dirtyBytesPerSec, now)] : [progress];
  }

  #progress(seen: Seen, expectedMs: number | undefined): SteeringAction {
    const { round, remainingBytes, dirtyBytesPerSec } = seen;
    const known = expectedMs !== undefined && this.#link.bandwidth > 0;
    return {
      type: 'progress',
      sample: {
        round,
        remainingBytes,
        dirtyBytesPerSec,
        bandwidthBytesPerSec: this.#link.bandwidth,
        expectedDowntimeMs: known ? expectedMs : null,
      },
    };
  }

  #act(decision: ConvergenceDecision, dirtyRate: BytesPerSec, now: Millis): SteeringAction[] {
    const { why } = decision;
    const code = this.#isPastDeadline(now) ? 'E_DEADLINE' : 'E_STALLED';
    switch (decision.action) {
      case 'continue':
        return [{ type: 'tell', what: 'another round', why }];
      case 'switchover':
        this.#over = true;
        return [
          ...this.#settleOn('precopy'),
          { type: 'tell', what: 'switch over', why },
          { type: 'reason', why },
          { type: 'switchover', landsFirst: landingPays(dirtyRate, this.#link.bandwidth) },
        ];
      case 'start-postcopy':
        return this.#postcopyPossible
          ? this.#startPostcopy(why)
          : this.#abort(code, sentences(why, `Post-copy is not possible: ${this.#facts.postcopyObstacle}`));
      case 'throttle':
        return [
          { type: 'tell', what: `throttle the guest by ${decision.percent} %`, why },
          { type: 'throttle', percent: decision.percent },
        ];
      case 'abort':
        return this.#abort(code, why);
    }
  }

  #startPostcopy(why: string): SteeringAction[] {
    this.#over = true;
    if (this.#strategy !== 'postcopy') this.#strategy = 'hybrid';
    return [
      { type: 'tell', what: 'start post-copy', why },
      { type: 'reason', why },
      ...(this.#strategy === 'postcopy' ? [] : [{ type: 'strategy', strategy: 'hybrid' } as const]),
      { type: 'start-postcopy' },
    ];
  }

  /** What was done is the strategy, where none was chosen. */
  #settleOn(strategy: ChosenStrategy, why?: string): SteeringAction[] {
    if (this.#strategy !== 'undecided') return [];
    this.#strategy = strategy;
    const told: SteeringAction[] =
      why === undefined ? [] : [{ type: 'tell', what: `strategy ${strategy}`, why, strategy }];
    return [{ type: 'strategy', strategy }, ...told];
  }

  #abort(code: 'E_STALLED' | 'E_DEADLINE', why: string): SteeringAction[] {
    this.#over = true;
    return [
      { type: 'tell', what: 'give up', why },
      { type: 'abort', code, why },
    ];
  }
}
