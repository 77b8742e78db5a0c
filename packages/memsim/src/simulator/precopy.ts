/**
 * The rounds: each sends what the one before left dirty, while the policy looks on. In the time between two events
 * (a look of the policy, a change of the link, the round's end) everything goes at one speed, so only events cost.
 */
import type { SteeringAction } from '@vmferry/engine/policy/steering';
import { bytes, bytesPerSec, millis, PAGE_BYTES, round } from '@vmferry/engine/units';
import type { CodecChoice } from './codec-choice.ts';
import { emptyLoad, type Load, loadOf, scaled } from './content.ts';
import { measure, writtenRanges } from './dirty/cells.ts';
import { PATIENCE_MS } from './link.ts';
import type { Migration } from './migration.ts';
import { OnItsWay } from './on-its-way.ts';
import { batchBytes, landing, pipelineOf } from './pipeline.ts';
import { Slices } from './slices.ts';

/** Less than this of what is too much on its way is none. */
const LEAST_BYTES = PAGE_BYTES;
/** Less than this of a page is nothing to send, and a hypervisor that has nothing waits before it looks again. */
const NO_PAGES = 0.5;
const EMPTY_ROUND_MS = 50;

/** A policy that looks more often waits for a moment within the round: it may be late by such a part of what is left. */
const COARSE_LOOKS_MS = 100;
const LOOKS_CLOSER = 256;

export type RoundsEnd =
  /** The guest stops, with these pages to send. `aheadMs`: until what is on its way has arrived. */
  | { readonly type: 'stop'; readonly dirty: Float64Array; readonly aheadMs: number }
  /**
   * `atOnce`: before anything was sent. `reached`: the page that would have been sent next. `batchBytes`: content of
   * the batches that were made last. `discards`: ranges that were sent and written again.
   */
  | {
      readonly type: 'postcopy';
      readonly dirty: Float64Array;
      readonly atOnce: boolean;
      readonly reached: number;
      readonly batchBytes: number;
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

/** `share`: how much of the round the hypervisor has sent. `left`: of the load that was to go meanwhile. */
type Sent = { readonly told: Told; readonly share: number; readonly left: number } | 'link-dead';

/** A load that the hypervisor is sending, from one share of the round to the other. */
interface Entering {
  readonly load: Load;
  readonly from: number;
  readonly to: number;
}

export class Rounds {
  readonly #migration: Migration;
  readonly #codecs: CodecChoice;
  /** For what is looked up on the way. */
  readonly #dirtySince: Float64Array;
  readonly #slices: Slices;
  /** When each slice was sent, in the workload's time. */
  readonly #sliceTaus: Float64Array;
  /** Of a round that is looked at in slices. */
  readonly #onItsWay = new OnItsWay();
  /** The newest of it. */
  #entering: Entering | undefined;
  /** A hypervisor that was told to hand over goes on with its round until then. */
  #goesOn: { readonly told: Told; readonly until: number } | undefined;
  /** See `landing`. */
  #landsFirst = false;
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
    const { places = [] } = migration.simulation.guest;
    this.#slices = new Slices(
      migration.set.cells,
      places.map(({ region }) => region),
    );
    this.#sliceTaus = new Float64Array(this.#slices.count);
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
    const empty = measure(migration.set.cells, this.#toSend) < NO_PAGES;
    // What was on its way arrives meanwhile.
    if (empty) migration.pass(Math.max(EMPTY_ROUND_MS, pipelineOf(migration, this.#codecs.codec).ms));
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
      conductor.roundEnd(
        this.#seen(nextBytes, empty ? 0 : this.#heldBytes()),
        migration.delivered,
        millis(migration.now),
      ),
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
  #all(): Sent {
    return this.#send(this.#loadOf(this.#toSend), measure(this.#migration.set.cells, this.#toSend), 0, 1);
  }

  /** Sends slice after slice, because it matters when a page has its turn. */
  #inSlices(): Sent {
    const { set, simulation } = this.#migration;
    const skips = simulation.guest.dirtyLog === 'skip';
    const beganTau = this.#migration.tau;
    const part = set.newSet();
    const total = measure(set.cells, this.#toSend);
    for (let slice = 0; slice < this.#slices.count; slice += 1) {
      const [from, to] = this.#slices.cellsOf(slice);
      const sliceTau = this.#migration.tau;
      part.fill(0);
      if (skips) set.dirtied(beganTau, sliceTau, this.#dirtySince);
      for (let cell = from; cell < to; cell += 1)
        part[cell] = this.#toSend[cell]! * (skips ? 1 - this.#dirtySince[cell]! : 1);
      const sent = this.#pushes(
        this.#loadOf(part),
        total,
        this.#slices.edge(slice),
        this.#slices.edge(slice + 1),
      );
      if (sent === 'link-dead' || sent.told !== 'go-on') return sent;
      this.#sliceTaus[slice] = (sliceTau + this.#migration.tau) / 2;
    }
    if (this.#goesOn) return { told: this.#goesOn.told, share: 1, left: 0 };
    const sent = this.#pushes(emptyLoad(), total, 1, 1);
    this.#entering = undefined;
    return sent;
  }

  /** The hypervisor sends a load, as soon as there is room for it; without one, all that it sent goes over. */
  #pushes(load: Load, total: number, fromShare: number, toShare: number): Sent {
    const onItsWay = this.#onItsWay;
    onItsWay.add(load);
    this.#entering = { load, from: fromShare, to: toShare };
    const ends = fromShare === toShare;
    const over = (): number => onItsWay.bytes - (ends ? 0 : this.#room);
    const content = load.rawPages * PAGE_BYTES;
    const toGo = over();
    // What there is room for goes at once; where there is less room than before, something has to go first.
    const whole = Math.max(content, toGo);
    const atOnce = (toShare - fromShare) * (1 - Math.max(0, toGo) / Math.max(1, whole));
    let at = ends ? toShare : Math.max(fromShare, Math.min(fromShare + atOnce, this.#headStart(total)));
    for (let left = toGo; ends ? !onItsWay.empty : left > LEAST_BYTES; left = over()) {
      const goes = onItsWay.take(ends ? Number.POSITIVE_INFINITY : left)!;
      const next = Math.min(
        toShare,
        at + ((toShare - fromShare) * goes.rawPages * PAGE_BYTES) / Math.max(1, whole),
      );
      const sent = this.#send(goes, total, at, next);
      if (sent === 'link-dead') return sent;
      if (sent.told !== 'go-on') {
        onItsWay.correct(scaled(goes, sent.left), scaled(load, this.#notEntered(sent.share)));
        return sent;
      }
      at = next;
    }
    return { told: 'go-on', share: toShare, left: 0 };
  }

  /** The share of a round after which the guest goes first; infinite where none does, or that is over. */
  #headStart(total: number): number {
    const { conductor } = this.#migration;
    return conductor.over ? Number.POSITIVE_INFINITY : conductor.headStartPages / total;
  }

  /** Of the load that the hypervisor is sending. */
  #notEntered(at: number): number {
    const { from, to } = this.#entering!;
    return to > from ? (to - at) / (to - from) : 0;
  }

  /** Content bytes that may be on their way, of what goes now. */
  get #room(): number {
    const { oldest } = this.#onItsWay;
    return pipelineOf(this.#migration, this.#codecs.codec, oldest).bytes;
  }

  /** Pages that are dirty at the end of a round that began at `beganTau`. */
  #dirtyAfter(beganTau: number): Float64Array {
    const { set, simulation, tau } = this.#migration;
    const dirty = set.dirtied(beganTau, tau);
    if (simulation.guest.dirtyLog !== 'send') return dirty;
    // What was sent in this round counts from when it was sent on.
    for (let slice = 0; slice < this.#slices.count; slice += 1) {
      const [from, to] = this.#slices.cellsOf(slice);
      set.dirtied(this.#sliceTaus[slice]!, tau, this.#dirtySince);
      for (let cell = from; cell < to; cell += 1) {
        const sent = this.#toSend[cell]!;
        dirty[cell] = sent * this.#dirtySince[cell]! + (1 - sent) * dirty[cell]!;
      }
    }
    return dirty;
  }

  #loadOf(pages: Float64Array): Load {
    const { set, simulation } = this.#migration;
    // Only the first round has pages that were never written: all others it is about were.
    if (this.#round === 1) return this.#migration.loadOf(pages);
    return loadOf(simulation.guest.content, measure(set.cells, pages), 0);
  }

  /** Sends a load that takes the round from the one share of its pages to the other. */
  #send(load: Load, roundPages: number, fromShare: number, toShare: number): Sent {
    const migration = this.#migration;
    const { conductor } = migration;
    let done = 0;
    let deadMs = 0;
    while (done < 1) {
      const speed = migration.speedOf(load, this.#codecs.codec);
      const change = migration.link.nextChange(migration.now);
      const endAt =
        speed.tookMs === Number.POSITIVE_INFINITY ? speed.tookMs : migration.now + speed.tookMs * (1 - done);
      // The agent counts what it reads, and does not wait for its next look.
      const ahead = this.#headStart(roundPages);
      const aheadDone = (ahead - fromShare) / (toShare - fromShare);
      const aheadAt =
        aheadDone >= done && aheadDone < 1 ? migration.now + speed.tookMs * (aheadDone - done) : endAt;
      const stopsAt = this.#goesOn?.until ?? Number.POSITIVE_INFINITY;
      const roundMs = (speed.tookMs * (1 - fromShare)) / (toShare - fromShare);
      const roundEndAt = migration.now + roundMs - speed.tookMs * done;
      const tickAt = this.#tickBefore(Math.min(endAt, change, aheadAt, stopsAt), roundEndAt);
      const until = Math.min(endAt, change, tickAt, aheadAt, stopsAt);
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
      const left = 1 - done;
      if (this.#goesOn && until === stopsAt) return { told: this.#goesOn.told, share: at, left };
      if (at >= ahead) {
        const told = this.#handsOver(this.#carryOut(conductor.headStartOver()));
        if (told !== 'go-on') return { told, share: at, left };
      }
      if (until !== tickAt) continue;
      this.#nextTick = tickAt + conductor.sampleMs;
      const held = this.#heldBytes(at, left * load.rawPages);
      const told = this.#handsOver(this.#look(roundPages * (1 - at) * PAGE_BYTES, held, speed.congested));
      if (told !== 'go-on') return { told, share: at, left };
    }
    return { told: 'go-on', share: toShare, left: 0 };
  }

  /**
   * A hypervisor whose round is being read looks for what it was told now and then: half of that time it goes on, on
   * average.
   */
  #handsOver(told: Told): Told {
    const { conductor, costs, now } = this.#migration;
    if (told !== 'start-postcopy' || conductor.landsFirst || costs.leadMs === 0) return told;
    this.#goesOn = { told, until: now + costs.leadMs / 2 };
    return 'go-on';
  }

  /**
   * When the policy looks next. Where nothing changes between two looks, the second sees what the first saw and
   * its averages come to the same however often it looks: then all looks but the last before the next event and
   * the first at the deadline are left out. Where it waits for a moment within the round it looks the closer the
   * less is left of it.
   */
  #tickBefore(event: number, roundEndAt: number): number {
    const { conductor, now, changedAt } = this.#migration;
    const every = conductor.sampleMs;
    if (conductor.over || every === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    // Looks that fell into the reading of the dirty log are not made up for.
    const late = Math.max(0, Math.ceil((now - this.#nextTick) / every));
    const next = late === 0 ? this.#nextTick : this.#nextTick + late * every;
    if (next >= event || now - changedAt < 2 * every || !this.#codecs.settled(now, changedAt)) return next;
    const closer = every < COARSE_LOOKS_MS ? now + (roundEndAt - now) / LOOKS_CLOSER : event;
    const last = next + Math.floor((Math.min(event, closer) - 1e-6 - next) / every) * every;
    if (last < next) return next;
    if (conductor.deadlineMs < last) {
      return Math.max(next, next + Math.ceil((conductor.deadlineMs - next) / every) * every);
    }
    return Number.isFinite(last) ? Math.max(next, last) : next;
  }

  #look(remainingBytes: number, heldBytes: number, congested: boolean): Told {
    const { conductor, now, delivered, wireBytes } = this.#migration;
    const totals = { contentBytes: delivered.contentBytes, wireBytes };
    if (this.#codecs.look(congested ? 1 : 0, totals, now)) this.#migration.changed();
    this.#migration.point(remainingBytes);
    return this.#carryOut(conductor.sample(this.#seen(remainingBytes, heldBytes), delivered, millis(now)));
  }

  #seen(remainingBytes: number, heldBytes: number) {
    return {
      round: round(this.#round),
      // As the source agent tells it: with what it holds itself.
      remainingBytes: bytes(remainingBytes + heldBytes),
      dirtyBytesPerSec: bytesPerSec(this.#dirtyRate),
    };
  }

  /** @param goingPages of the load that goes now, with content */
  #heldBytes(at = 1, goingPages = 0): number {
    if (!this.#entering) return pipelineOf(this.#migration, this.#codecs.codec).bytes;
    const pages = goingPages - this.#entering.load.rawPages * this.#notEntered(at);
    return this.#onItsWay.bytes + pages * PAGE_BYTES;
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
          this.#landsFirst = action.landsFirst;
          told = action.type;
          break;
        case 'start-postcopy':
          this.#landsFirst = migration.conductor.landsFirst;
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
    const made = batchBytes(this.#migration, this.#codecs.codec, this.#onItsWay.oldest);
    const onItsWayMs = this.#onItsWayMs();
    const { landedMs, aheadMs } = landing(this.#landsFirst, onItsWayMs);
    this.#migration.pass(landedMs);
    // Counted as downtime: it writes nothing any more.
    this.#migration.stand(costs.stopMs);
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
    if (told === 'switchover') return { type: 'stop', dirty, aheadMs };
    const discards = writtenRanges(set.cells, there, since);
    const atOnce = this.#round === 1 && share === 0;
    return { type: 'postcopy', dirty, atOnce, reached, batchBytes: made, aheadMs, discards };
  }

  /** What the hypervisor has sent counts as gone, and takes so long to arrive. */
  #onItsWayMs(): number {
    const migration = this.#migration;
    const { codec } = this.#codecs;
    if (this.#onItsWay.empty) return pipelineOf(migration, codec).ms;
    const load = this.#onItsWay.takeAll();
    migration.sent(load, codec);
    const { tookMs } = migration.speedOf(load, codec);
    return tookMs === Number.POSITIVE_INFINITY ? 0 : tookMs;
  }
}
