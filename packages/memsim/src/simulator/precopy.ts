/**
 * The rounds: each sends what the one before left dirty, while the policy looks on. In the time between two events
 * (a look of the policy, a change of the link, the round's end) everything goes at one speed, so only events cost.
 */
import type { SteeringAction } from '@vmferry/engine/policy/steering';
import { bytes, bytesPerSec, millis, PAGE_BYTES, round } from '@vmferry/engine/units';
import type { CodecChoice } from './codec-choice.ts';
import { type Load, loadOf, scaled } from './content.ts';
import { measure, writtenRanges } from './dirty/cells.ts';
import { PATIENCE_MS } from './link.ts';
import type { Migration } from './migration.ts';
import { landing, pipelineOf } from './pipeline.ts';

/** Where it matters when a page has its turn, a round is looked at in so many parts. */
const SLICES = 32;

export type RoundsEnd =
  /** The guest stops, with these pages to send. */
  | { readonly type: 'stop'; readonly dirty: Float64Array }
  /**
   * `atOnce`: before anything was sent. `aheadMs`: until what is on its way has arrived. `discards`: ranges that were
   * sent and written again.
   */
  | {
      readonly type: 'postcopy';
      readonly dirty: Float64Array;
      readonly atOnce: boolean;
      readonly aheadMs: number;
      readonly discards: number;
    }
  | Extract<SteeringAction, { type: 'abort' }>
  | { readonly type: 'link-dead' };

type Told =
  | 'go-on'
  | 'switchover'
  | 'start-postcopy'
  | { readonly abort: Extract<SteeringAction, { type: 'abort' }> };

export class Rounds {
  readonly #migration: Migration;
  readonly #codecs: CodecChoice;
  /** For what is looked up on the way. */
  readonly #dirtySince: Float64Array;
  /** When each slice was sent, in the workload's time. */
  readonly #sliceTaus = new Float64Array(SLICES);
  #toSend: Float64Array;
  #round = 1;
  #dirtyRate = 0;
  #nextTick: number;

  constructor(migration: Migration, codecs: CodecChoice) {
    this.#migration = migration;
    this.#codecs = codecs;
    this.#toSend = migration.set.newSet().fill(1);
    this.#dirtySince = migration.set.newSet();
    this.#nextTick = migration.now + migration.conductor.sampleMs;
  }

  run(): RoundsEnd {
    const { conductor } = this.#migration;
    const begun = this.#carryOut(conductor.begin(millis(this.#migration.now)));
    if (begun !== 'go-on') return this.#end(begun, 0);
    for (;;) {
      const end = this.#one();
      if (end) return end;
    }
  }

  /** One round; undefined when another follows. */
  #one(): RoundsEnd | undefined {
    const migration = this.#migration;
    const { simulation, costs, conductor } = migration;
    const beganAt = migration.now;
    const beganTau = migration.tau;
    const sent = simulation.guest.dirtyLog !== 'round' || this.#mayEndWithin ? this.#inSlices() : this.#all();
    if (sent === 'link-dead') return { type: 'link-dead' };
    if (sent.told !== 'go-on') return this.#end(sent.told, sent.share, beganTau);
    migration.pass(costs.roundMs + (costs.roundMsPerGiB * simulation.guest.memoryBytes) / 2 ** 30);
    const next = this.#dirtyAfter(beganTau);
    const nextBytes = measure(migration.set.cells, next) * PAGE_BYTES;
    const tookMs = Math.max(0.001, migration.now - beganAt);
    this.#dirtyRate = (nextBytes * 1000) / tookMs;
    migration.roundEnded(this.#round, this.#dirtyRate, nextBytes);
    this.#toSend = next;
    // The hypervisor stops the guest by itself.
    if (simulation.guest.oneLiveRound) {
      this.#carryOut(conductor.stopped());
      return this.#end('switchover', 0);
    }
    const told = this.#carryOut(
      conductor.roundEnd(this.#seen(nextBytes), migration.delivered, millis(migration.now)),
    );
    this.#round += 1;
    return told === 'go-on' ? undefined : this.#end(told, 0);
  }

  /** What a round has sent by then is told from what lies behind it, and what the guest wrote lies in places. */
  get #mayEndWithin(): boolean {
    const { simulation, conductor } = this.#migration;
    return this.#round === 1 && (simulation.guest.oneLiveRound || Number.isFinite(conductor.headStartPages));
  }

  /** Sends all that is to be sent. `share`: how much of it went. */
  #all(): { readonly told: Told; readonly share: number } | 'link-dead' {
    return this.#send(this.#loadOf(this.#toSend), measure(this.#migration.set.cells, this.#toSend), 0, 1);
  }

  /** Sends slice after slice, because it matters when a page has its turn. `share`: of memory. */
  #inSlices(): { readonly told: Told; readonly share: number } | 'link-dead' {
    const { set, simulation } = this.#migration;
    const skips = simulation.guest.dirtyLog === 'skip';
    const beganTau = this.#migration.tau;
    const part = set.newSet();
    const total = measure(set.cells, this.#toSend);
    for (let slice = 0; slice < SLICES; slice += 1) {
      const [from, to] = this.#cellsOf(slice);
      const sliceTau = this.#migration.tau;
      part.fill(0);
      if (skips) set.dirtied(beganTau, sliceTau, this.#dirtySince);
      for (let cell = from; cell < to; cell += 1)
        part[cell] = this.#toSend[cell]! * (skips ? 1 - this.#dirtySince[cell]! : 1);
      const sent = this.#send(this.#loadOf(part), total, this.#edge(slice), this.#edge(slice + 1));
      if (sent === 'link-dead' || sent.told !== 'go-on') return sent;
      this.#sliceTaus[slice] = (sliceTau + this.#migration.tau) / 2;
    }
    return { told: 'go-on', share: 1 };
  }

  /** Pages that are dirty at the end of a round that began at `beganTau`. */
  #dirtyAfter(beganTau: number): Float64Array {
    const { set, simulation, tau } = this.#migration;
    const dirty = set.dirtied(beganTau, tau);
    if (simulation.guest.dirtyLog !== 'send') return dirty;
    // What was sent in this round counts from when it was sent on.
    for (let slice = 0; slice < SLICES; slice += 1) {
      const [from, to] = this.#cellsOf(slice);
      set.dirtied(this.#sliceTaus[slice]!, tau, this.#dirtySince);
      for (let cell = from; cell < to; cell += 1) {
        const sent = this.#toSend[cell]!;
        dirty[cell] = sent * this.#dirtySince[cell]! + (1 - sent) * dirty[cell]!;
      }
    }
    return dirty;
  }

  /** The cells of one slice of memory: the first, and the one after the last. */
  #cellsOf(slice: number): readonly [number, number] {
    const { from, first } = this.#migration.set.cells;
    const edge = (number: number): number => from[Math.floor((first.length * number) / SLICES)]!;
    return [edge(slice), edge(slice + 1)];
  }

  /** Where a slice begins, as a share of memory. */
  #edge(slice: number): number {
    const { first, memoryPages } = this.#migration.set.cells;
    const stretch = Math.floor((first.length * slice) / SLICES);
    return stretch < first.length ? first[stretch]! / memoryPages : 1;
  }

  #loadOf(pages: Float64Array): Load {
    const { set, simulation } = this.#migration;
    // Only the first round has pages that were never written: all others it is about were.
    if (this.#round === 1) return this.#migration.loadOf(pages);
    return loadOf(simulation.guest.content, measure(set.cells, pages), 0);
  }

  /** Sends a load that takes the round from the one share of its pages to the other. */
  #send(
    load: Load,
    roundPages: number,
    fromShare: number,
    toShare: number,
  ): { readonly told: Told; readonly share: number } | 'link-dead' {
    const migration = this.#migration;
    const { conductor } = migration;
    const ahead = conductor.headStartPages / roundPages;
    let done = 0;
    let deadMs = 0;
    while (done < 1) {
      const speed = migration.speedOf(load, this.#codecs.codec);
      const change = migration.link.nextChange(migration.now);
      const endAt =
        speed.tookMs === Number.POSITIVE_INFINITY ? speed.tookMs : migration.now + speed.tookMs * (1 - done);
      // The agent counts what it reads, and does not wait for its next look.
      const aheadDone = (ahead - fromShare) / (toShare - fromShare);
      const aheadAt =
        aheadDone > done && aheadDone < 1 ? migration.now + speed.tookMs * (aheadDone - done) : endAt;
      const tickAt = this.#tickBefore(Math.min(endAt, change, aheadAt));
      const until = Math.min(endAt, change, tickAt, aheadAt);
      if (until === Number.POSITIVE_INFINITY) return 'link-dead';
      const passed = until - migration.now;
      if (speed.tookMs === Number.POSITIVE_INFINITY) {
        deadMs += passed;
        if (deadMs > PATIENCE_MS) return 'link-dead';
      }
      const share = until === endAt ? 1 - done : passed / speed.tookMs;
      migration.sent(scaled(load, share), this.#codecs.codec);
      migration.pass(passed);
      if (until === endAt) done = 1;
      else done = until === aheadAt ? aheadDone : done + share;
      const at = fromShare + (toShare - fromShare) * done;
      if (at >= ahead) {
        const told = this.#carryOut(conductor.headStartOver());
        if (told !== 'go-on') return { told, share: at };
      }
      if (until !== tickAt) continue;
      this.#nextTick = tickAt + conductor.sampleMs;
      const told = this.#look(roundPages * (1 - at) * PAGE_BYTES, speed.congested);
      if (told !== 'go-on') return { told, share: at };
    }
    return { told: 'go-on', share: toShare };
  }

  /**
   * When the policy looks next. Where nothing changes between two looks, the second sees what the first saw and
   * its averages come to the same however often it looks: then all looks but the last before the next event and
   * the first at the deadline are left out.
   */
  #tickBefore(event: number): number {
    const { conductor, now, changedAt } = this.#migration;
    const every = conductor.sampleMs;
    if (conductor.over || every === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    // Looks that fell into the reading of the dirty log are not made up for.
    const late = Math.max(0, Math.ceil((now - this.#nextTick) / every));
    const next = late === 0 ? this.#nextTick : this.#nextTick + late * every;
    if (next >= event || every < 100 || now - changedAt < 2 * every || !this.#codecs.settled(now, changedAt))
      return next;
    const last = next + Math.floor((event - 1e-6 - next) / every) * every;
    if (conductor.deadlineMs < last) {
      return Math.max(next, next + Math.ceil((conductor.deadlineMs - next) / every) * every);
    }
    return Number.isFinite(last) ? Math.max(next, last) : next;
  }

  #look(remainingBytes: number, congested: boolean): Told {
    const { conductor, now, delivered, wireBytes } = this.#migration;
    const totals = { contentBytes: delivered.contentBytes, wireBytes };
    if (this.#codecs.look(congested, totals, now)) this.#migration.changed();
    this.#migration.point(remainingBytes);
    return this.#carryOut(conductor.sample(this.#seen(remainingBytes), delivered, millis(now)));
  }

  #seen(remainingBytes: number) {
    const migration = this.#migration;
    return {
      round: round(this.#round),
      // As the source agent tells it: with what it holds itself.
      remainingBytes: bytes(remainingBytes + pipelineOf(migration, this.#codecs.codec).bytes),
      dirtyBytesPerSec: bytesPerSec(this.#dirtyRate),
    };
  }

  #carryOut(actions: readonly SteeringAction[]): Told {
    const migration = this.#migration;
    let told: Told = 'go-on';
    for (const action of actions) {
      switch (action.type) {
        case 'strategy':
          migration.builder.strategy(action.strategy);
          break;
        case 'tell':
          migration.decided(action.what, action.why);
          break;
        case 'reason':
          migration.builder.switchover(action.why);
          break;
        case 'throttle':
          migration.throttle(action.percent);
          break;
        case 'measure-dirty-rate':
          migration.conductor.dirtyRateMeasured(migration.measureDirtyRate());
          break;
        case 'switchover':
        case 'start-postcopy':
          told = action.type;
          break;
        case 'abort':
          told = { abort: action };
          break;
        case 'progress':
          break;
      }
    }
    return told;
  }

  /** @param share how much of what was to be sent in a round that began at `beganTau` went */
  #end(told: Exclude<Told, 'go-on'>, share: number, beganTau = this.#migration.tau): RoundsEnd {
    if (typeof told === 'object') return told.abort;
    const { set, costs } = this.#migration;
    const { landedMs, aheadMs } = landing(this.#migration, this.#codecs.codec);
    this.#migration.pass((told === 'start-postcopy' ? landedMs : 0) + costs.stopMs);
    const since = set.dirtied(beganTau, this.#migration.tau);
    const dirty = this.#toSend;
    const there = set.newSet();
    // Sent in order of addresses: what lies behind that place is there, unless it was written since.
    const reached = set.cells.memoryPages * share;
    for (let cell = 0; cell < dirty.length; cell += 1) {
      const stretch = set.cells.stretch[cell]!;
      const behind = (reached - set.cells.first[stretch]!) / set.cells.pages[stretch]!;
      const left = dirty[cell]! * (1 - Math.min(1, Math.max(0, behind)));
      there[cell] = 1 - left;
      dirty[cell] = 1 - (1 - left) * (1 - since[cell]!);
    }
    if (told === 'switchover') return { type: 'stop', dirty };
    const discards = writtenRanges(set.cells, there, since);
    return { type: 'postcopy', dirty, atOnce: this.#round === 1 && share === 0, aheadMs, discards };
  }
}
