/**
 * Post-copy: the guest runs at its new place and waits for each page that it wants and that is not there.
 *
 * Faults come one by one in life; here as many at a time as change nothing much (a fiftieth of what is missing),
 * so a guest of any size takes about the same. What comes along with an answer is what the engine's `Prepaging`
 * says, and the background keeps the engine's pace.
 */
import { POSTCOPY_BATCH, pacedBatch } from '@vmferry/engine/carriage/batch-limits';
import { packsInHaste } from '@vmferry/engine/carriage/haste';
import { ARRIVAL_MS, bulkBudget } from '@vmferry/engine/postcopy/bulk-budget';
import { answerAlong, neighbourhood, Prepaging } from '@vmferry/engine/postcopy/prepaging';
import { blockIndex, bytesPerSec, millis, PAGE_BYTES, pages } from '@vmferry/engine/units';
import { type CodecChoice, LOOK_MS } from '../codec-choice.ts';
import { type BulkCodec, type Load, scaled, type WireForm } from '../content.ts';
import { moment, type Span } from '../dirty/writer.ts';
import type { Migration } from '../migration.ts';
import type { PostcopyFigures } from '../model.ts';
import { type Random, seededRandom } from '../random.ts';
import { type Demand, Demands } from './demand.ts';
import { backgroundShare, type FaultLoop, faultLoop, outage } from './fault-loop.ts';
import { MissingPages } from './missing-pages.ts';
import { TURNS, turnsOf } from './turns.ts';

/** The share of what is missing that one step may bring. */
const STEP_SHARE = 0.02;
/** The same of the pages that are wanted most, whose number changes how often faults come. */
const WANTED_SHARE = 0.25;
const LEAST_STEP_MS = 0.001;
/**
 * So many steps may end with a stretch that a walk has before it. Later ones may pass several: over as many again they
 * get longer, up to `STEP_SHARE`.
 */
const CLOSE_STEPS = 1500;
const MOST_STEPS = 20_000;
/**
 * Work that is spent on following changes of accesses one by one, in cells that are looked at and each step's own. Then
 * several are seen as one.
 */
const FOLLOWED = 100_000;
const A_STEP = 200;
/** The share of what is missing that an overview may bring; more where it is more work than that. */
const OVERVIEW_SHARE = 0.03;
const OVERVIEW_WORK = 2000;
const MOST_COARSE = 3;
/** The last pages go in steps that get no smaller. */
const LITTLE = 0.005;
/** Faults of one step whose waits are told apart. */
const WAITS_A_STEP = 4;

/** What the engine brings with a fault out of the blue, and with each of a walk that goes on, in pages. */
interface Reaches {
  readonly around: number;
  readonly walk: number;
}

/**
 * The source's agent is congested while three batches of the background wait for leave to go, beside the one that has
 * gone. They are made for the most that has gone of late, which is more than what goes on average.
 */
const CONGESTED_BATCHES = 4;
const PEAK = 1.2;
const ROOM = { bytesInFlight: 0, window: 1 };

const ANSWER_PAGES = answerAlong({ block: blockIndex(0), first: pages(0), count: pages(1) }).count;

/** What goes over per fault, and how fast. */
interface Pace {
  readonly pageMs: number;
  readonly broughtPages: number;
  readonly loop: FaultLoop;
  readonly backgroundPerMs: number;
  /** Share of the time in which batches of the background wait for leave to go. */
  readonly blockedShare: number;
}

/** The background where it has its turn: milliseconds a page, and whole batches. */
interface BulkPace {
  readonly pageMs: number;
  readonly batchPages: number;
  readonly batchMs: number;
}

/** @param pathKnown whether anything was sent before */
export function servePages(
  migration: Migration,
  missing: Float64Array,
  codecs: CodecChoice,
  pathKnown: boolean,
): PostcopyFigures | 'link-dead' {
  return new PageService(migration, missing, codecs, pathKnown).run();
}

/** Far above what the changes of a link add: a defect is told, and nobody waits for it. */
const NEVER_ENDS = 100 * MOST_STEPS;

class PageService {
  readonly #migration: Migration;
  readonly #missing: MissingPages;
  readonly #codecs: CodecChoice;
  #nextLook: number;
  readonly #random: Random;
  /** What an average missing page weighs. */
  readonly #page: Load;
  #reaches: { readonly least: number; readonly pages: Reaches } = { least: 0, pages: { around: 1, walk: 1 } };
  readonly #missingAtFirst: number;
  readonly #demands: Demands;
  #followed = 0;
  /** Seconds of the workload that the next overview may be about, and milliseconds that one of them took. */
  #seconds = 0;
  #msPerSecond = 1000;
  #faults = 0;
  #waitedMs = 0;
  readonly #beganTau: number;
  readonly #arrivedAt: number;
  readonly #pathKnown: boolean;
  readonly #speeds: Partial<Record<WireForm, { readonly rate: number; readonly pageMs: number }>> = {};
  #sent = 0;
  #steps = 0;

  constructor(migration: Migration, missing: Float64Array, codecs: CodecChoice, pathKnown: boolean) {
    this.#migration = migration;
    this.#pathKnown = pathKnown;
    this.#beganTau = migration.tau;
    this.#arrivedAt = migration.now;
    this.#codecs = codecs;
    this.#nextLook = migration.now + LOOK_MS;
    this.#random = seededRandom(migration.simulation.seed);
    const load = migration.loadOf(missing);
    this.#missing = new MissingPages(migration.set.cells, missing);
    this.#demands = new Demands(migration.set, this.#missing);
    this.#missingAtFirst = this.#missing.total;
    this.#page = scaled(load, 1 / Math.max(1e-9, this.#missingAtFirst));
  }

  run(): PostcopyFigures | 'link-dead' {
    const migration = this.#migration;
    for (; !this.#missing.none; this.#steps += 1) {
      if (!this.#awaitLink()) return 'link-dead';
      if (this.#steps > NEVER_ENDS) throw new Error('a simulated post-copy does not come to its end');
      if (this.#steps < MOST_STEPS) this.#step();
      else this.#carryRest();
    }
    // Fractions of a page.
    this.#send(this.#missing.takeNext(Number.POSITIVE_INFINITY), this.#codecs.codec);
    migration.point(0);
    return {
      missingPages: this.#missingAtFirst,
      sentPages: this.#sent,
      touchedPages: migration.set.touchedPages(this.#beganTau, migration.tau),
      faults: Math.round(this.#faults),
      meanWaitMs: this.#faults > 0 ? this.#waitedMs / this.#faults : 0,
    };
  }

  /** While the link carries nothing vCPUs run until they fault, and wait for its end. False where it has none. */
  #awaitLink(): boolean {
    const migration = this.#migration;
    const { link, now, conductor, simulation } = migration;
    const outageMs = link.carriesFrom(now, conductor.rateLimit) - now;
    if (outageMs === Number.POSITIVE_INFINITY) return false;
    if (outageMs === 0) return true;
    migration.stand(outageMs);
    const demand = this.#demand(moment(migration.tau), 0);
    const loop = outage(simulation.guest.vcpus, demand.faultsPerSec / 1000, outageMs);
    migration.tau += loop.ranMs / 1000;
    const before = this.#missing.total;
    if (loop.faults > 0) this.#serve(demand, loop.faults, loop.waitMs);
    const brought = scaled(this.#page, before - this.#missing.total);
    migration.stand(migration.speedOf(brought, this.#answerCodec).tookMs);
    this.#send(before - this.#missing.total, this.#answerCodec);
    migration.point(this.#missing.total * PAGE_BYTES);
    return true;
  }

  #step(): void {
    const { set, tau } = this.#migration;
    this.#reaches = this.#reachesAt();
    const changeMs = this.#changeMs;
    const changes = set.nextChange(tau);
    if (this.#followed < FOLLOWED || changes - tau > this.#seconds / TURNS) {
      const demand = this.#demand(moment(tau), 0);
      const pace = this.#pace(demand, this.#pageMs(this.#alongCodec));
      const tookMs = this.#stepMs(demand, pace, changeMs, changes - tau);
      const longest = (this.#longestMs(pace) * pace.loop.running) / 1000;
      this.#seconds = Math.min(longest, 2 * TURNS * (changes - tau));
      if (changes === Number.POSITIVE_INFINITY) this.#goOn(demand, pace, tookMs);
      // What has just come into the working set is wanted all at once, and soon is there.
      else this.#followed += this.#during(moment(tau), (tookMs * pace.loop.running) / 1000);
      return;
    }
    // It ends with the link's change; a rest would be an overview of its own.
    this.#overview(Math.min(this.#seconds, (1.1 * changeMs) / this.#msPerSecond));
  }

  /** So many seconds of a workload whose accesses change often: each of its turns at a stretch. */
  #overview(seconds: number): void {
    const migration = this.#migration;
    const { set, tau, now } = migration;
    const change = migration.link.nextChange(now);
    const before = this.#missing.total;
    let work = 0;
    for (const { at, share } of turnsOf(set, tau, seconds, this.#steps)) {
      work += this.#during({ from: tau, to: tau + seconds, at }, seconds * share);
      if (this.#missing.none) return;
      // The link may carry nothing any more.
      if (migration.now >= change) break;
    }
    const brought = before - this.#missing.total;
    const passed = Math.max(1e-12, migration.tau - tau);
    this.#msPerSecond = (migration.now - now) / passed;
    const share = OVERVIEW_SHARE * Math.min(MOST_COARSE, Math.max(1, work / OVERVIEW_WORK));
    const enough = share * Math.max(before, LITTLE * this.#missingAtFirst);
    this.#seconds = Math.min(2 * this.#seconds, (passed * enough) / Math.max(1e-9, brought));
  }

  /** So many seconds of the workload, in which what is wanted at first may not be wanted at the end. Gives the work. */
  #during(span: Span, seconds: number): number {
    const demand = this.#demand(span, seconds);
    const pace = this.#pace(demand, this.#pageMs(this.#alongCodec));
    const allMs = (seconds * 1000) / Math.max(1e-9, pace.loop.running);
    this.#goOn(demand, pace, Math.min(this.#changeMs, Math.max(LEAST_STEP_MS, allMs)));
    return A_STEP + demand.rates.cells.length;
  }

  /** Time to the next change of the link, or until the guest counts no more as having just arrived. */
  get #changeMs(): number {
    const { link, now } = this.#migration;
    return Math.min(link.nextChange(now) - now, this.#arrivalLeftMs);
  }

  #goOn(demand: Demand, pace: Pace, tookMs: number): void {
    const migration = this.#migration;
    const faults = pace.loop.faultsPerMs * tookMs;
    const before = this.#missing.total;
    const { rate, wireBytes } = migration;
    if (faults > 0) this.#serve(demand, faults, pace.loop.waitMs);
    const brought = before - this.#missing.total;
    const answers = Math.min(brought, faults * this.#answerPages(pace.broughtPages));
    this.#send(answers, this.#answerCodec);
    this.#send(brought - answers, this.#alongCodec);
    this.#send(this.#missing.takeNext(pace.backgroundPerMs * tookMs), this.#bulkForm);
    // What faults bring differs from what an average one was taken to bring.
    migration.now += Math.max(tookMs, ((migration.wireBytes - wireBytes) * 1000) / rate);
    migration.tau += (tookMs / 1000) * pace.loop.running;
    migration.point(this.#missing.total * PAGE_BYTES);
    this.#lookAtCodec(pace);
  }

  /** All that is missing, by the background, up to the link's next change. */
  #carryRest(): void {
    const migration = this.#migration;
    if (this.#steps === MOST_STEPS)
      migration.builder.note('The last pages of post-copy were not followed fault by fault.');
    const { pageMs } = this.#bulkPace();
    const tookMs = Math.min(
      this.#missing.total * pageMs,
      migration.link.nextChange(migration.now) - migration.now,
    );
    this.#send(this.#missing.takeNext(tookMs / pageMs), this.#bulkForm);
    migration.pass(tookMs);
    migration.point(this.#missing.total * PAGE_BYTES);
  }

  /** Until the guest counts no more as having just arrived; infinite from then on. */
  get #arrivalLeftMs(): number {
    const leftMs = this.#arrivedAt + ARRIVAL_MS - this.#migration.now;
    // No step is shorter than this.
    return leftMs > LEAST_STEP_MS ? leftMs : Number.POSITIVE_INFINITY;
  }

  /** The window is never full, as the engine's budget is less. */
  get #bulkForm(): WireForm {
    const { codec } = this.#codecs;
    const { link, now, conductor } = this.#migration;
    const pathBytesPerSec = link.rate(now, conductor.rateLimit);
    return codec === 'lz4' && packsInHaste({ ...ROOM, pathBytesPerSec }) ? 'hasty' : codec;
  }

  /** What comes along with a fault is always packed. */
  get #alongCodec(): BulkCodec {
    return this.#around ? 'lz4' : this.#codecs.codec;
  }

  /** The page that is waited for, and what comes right with it, is not: that would take time. */
  get #answerCodec(): BulkCodec {
    return this.#around ? 'raw' : this.#codecs.codec;
  }

  get #around(): boolean {
    return this.#migration.simulation.postcopy.prepaging === 'around';
  }

  /** Pages around a fault out of the blue that come with it, itself among them. */
  get #neighbours(): number {
    return this.#around ? this.#reaches.pages.around : 1;
  }

  /** Of the pages that a fault brings, those that are its answer. */
  #answerPages(broughtPages: number): number {
    return Math.min(broughtPages, this.#around ? ANSWER_PAGES : 1);
  }

  #lookAtCodec({ blockedShare }: Pace): void {
    const { now, delivered, wireBytes } = this.#migration;
    if (now < this.#nextLook) return;
    this.#nextLook = now + LOOK_MS;
    this.#codecs.look(blockedShare, { contentBytes: delivered.contentBytes, wireBytes }, now);
  }

  /** See `Demands`. */
  #demand(span: Span, seconds: number): Demand {
    const pageMs = this.#pageMs(this.#alongCodec);
    return this.#demands.of(span, seconds, this.#neighbours, (gap) => this.#reach(gap, pageMs));
  }

  /** Pages forward that a walk has with each fault. */
  #reach(gap: number, pageMs: number): number {
    switch (this.#migration.simulation.postcopy.prepaging) {
      case 'around':
        return gap < this.#reaches.pages.walk ? this.#reaches.pages.walk : this.#reaches.pages.around / 2;
      case 'pivot':
        // The background goes on from the fault, and what it sends while the answer is on its way comes with it.
        return 1 + this.#aloneMs(pageMs) / pageMs;
      case 'none':
        return 1;
    }
  }

  /**
   * What the source takes the path for, on the wire. It learns that from frames that follow each other closely; where
   * nothing was sent before, from batches of which each waits for the one before to be acknowledged.
   */
  #pathRate(): number {
    const { link, now, conductor, costs } = this.#migration;
    const rate = link.rate(now, conductor.rateLimit);
    if (this.#pathKnown) return rate;
    const wire = this.#migration.wireOf(this.#page, this.#bulkForm);
    const batch = (POSTCOPY_BATCH.rawPages * wire) / Math.max(1e-9, this.#page.rawPages);
    return (batch * 1000) / ((batch * 1000) / rate + costs.pathTripMs);
  }

  #reachesAt(): { readonly least: number; readonly pages: Reaches } {
    const least = neighbourhood(this.#pathRate());
    return least === this.#reaches.least ? this.#reaches : { least, pages: reachesOf(least) };
  }

  /** A fault's wait where nothing else is on the link. */
  #aloneMs(answerPageMs: number): number {
    const { link, now, costs, conductor, simulation } = this.#migration;
    const { channel, queuedBytes } = simulation.postcopy;
    const queuedMs = channel === 'shared' ? (queuedBytes * 1000) / link.rate(now, conductor.rateLimit) : 0;
    // The page itself, and a few that come right with it.
    const answerMs = this.#around ? ANSWER_PAGES * answerPageMs : answerPageMs;
    return link.roundTripMs(now) + costs.faultMs + answerMs + queuedMs;
  }

  #pace(demand: Demand, pageMs: number): Pace {
    const { vcpus } = this.#migration.simulation.guest;
    const broughtPages = this.#broughtPages(demand);
    const answerPages = this.#answerPages(broughtPages);
    const answerPageMs = this.#pageMs(this.#answerCodec);
    const broughtMs = answerPages * answerPageMs + (broughtPages - answerPages) * pageMs;
    const aloneMs = this.#aloneMs(answerPageMs);
    const faultsPerMs = demand.faultsPerSec / 1000;
    const serviceMs = this.#around ? broughtMs : pageMs;
    const bulk = this.#bulkPace();
    const loop = faultLoop({ vcpus, faultsPerMs, aloneMs, serviceMs });
    // What is left of the time goes to the background.
    const free = Math.max(0, 1 - loop.faultsPerMs * broughtMs);
    const share = this.#around ? Math.min(free, this.#backgroundShare(demand, loop, bulk)) : free;
    const backgroundPerMs = share / bulk.pageMs;
    return { pageMs, broughtPages, loop, backgroundPerMs, blockedShare: this.#blockedShare(share, bulk) };
  }

  /**
   * So little of the background is on its way at a time that it never waits for the link's window, but it waits for the
   * operator's limit.
   */
  #blockedShare(share: number, { batchPages }: BulkPace): number {
    const { link, now, conductor } = this.#migration;
    const { rateLimit } = conductor;
    if (!this.#around || rateLimit <= 0 || link.rate(now, 0) <= rateLimit) return 0;
    const most = bulkBudget(Number.POSITIVE_INFINITY, { linkBytesPerSec: this.#pathRate() });
    const largest = POSTCOPY_BATCH.rawPages * PAGE_BYTES;
    const batch = Math.min(largest, PEAK * batchPages * this.#page.rawPages * PAGE_BYTES);
    return most > (CONGESTED_BATCHES - 1) * batch ? Math.min(1, share) : 0;
  }

  /** What an average missing page takes, as long as the link stays as it is. */
  #pageMs(form: WireForm): number {
    const { rate } = this.#migration;
    const known = this.#speeds[form];
    if (known?.rate === rate) return known.pageMs;
    const pageMs = this.#migration.speedOf(this.#page, form).tookMs;
    this.#speeds[form] = { rate, pageMs };
    return pageMs;
  }

  /** Whole batches, each with its price: hosts are slower than with those before post-copy, which are large. */
  #bulkPace(): BulkPace {
    const { costs } = this.#migration;
    const { rawPages } = this.#page;
    const aloneMs = this.#pageMs(this.#bulkForm);
    const limits = pacedBatch(POSTCOPY_BATCH, bytesPerSec((rawPages * PAGE_BYTES * 1000) / aloneMs));
    const batchPages = Math.min(limits.pages, limits.rawPages / Math.max(1e-9, rawPages));
    const batchPageMs = costs.batchMs / batchPages;
    const pageMs = this.#migration.speedOf(this.#page, this.#bulkForm, batchPageMs).tookMs;
    return { pageMs, batchPages, batchMs: batchPages * pageMs };
  }

  #backgroundShare(demand: Demand, loop: FaultLoop, { pageMs, batchPages, batchMs }: BulkPace): number {
    const { simulation, link, now, costs } = this.#migration;
    const contentBytes = this.#page.rawPages * PAGE_BYTES;
    // A batch's way there and its acknowledgement's way back are those of a fault.
    const needed = (contentBytes / pageMs) * (link.roundTripMs(now) + costs.faultMs + batchMs);
    return backgroundShare({
      vcpus: simulation.guest.vcpus,
      atRandomPerMs: demand.atRandom / 1000,
      walksPerMs: (demand.faultsPerSec - demand.atRandom) / 1000,
      loop,
      neededBytes: Math.max(1, needed),
      batchBytes: Math.max(1, batchPages * contentBytes),
      batchMs,
      linkBytesPerSec: this.#pathRate(),
      arrivedMs: now - this.#arrivedAt,
    });
  }

  /** Missing pages that come with an average fault, itself among them. */
  #broughtPages({ atRandom, walks, faultsPerSec }: Demand): number {
    if (faultsPerSec <= 0) return 0;
    let sum = atRandom * Math.max(1, this.#neighbours * this.#missing.density);
    for (const { faultsPerSec: often, reach, ahead } of walks)
      sum += often * Math.max(1, reach * ahead.density);
    return sum / faultsPerSec;
  }

  /** Until so much of what is missing has come that one step may bring no more. */
  #longestMs({ loop, broughtPages, backgroundPerMs }: Pace): number {
    const perMs = loop.faultsPerMs * broughtPages + backgroundPerMs;
    return Math.max(1, this.#missing.total * STEP_SHARE) / perMs;
  }

  /** As long as nothing changes much. */
  #stepMs(demand: Demand, pace: Pace, changeMs: number, changesIn: number): number {
    const { loop } = pace;
    const running = Math.max(1e-3, loop.running);
    const longest = this.#longestMs(pace);
    const walksAtLeast = longest * Math.min(1, Math.max(0, this.#steps / CLOSE_STEPS - 1));
    let least = longest;
    if (demand.atRandom > 0) {
      const wanted = this.#missing.wantedMost(demand.rates, demand.atRandom);
      const often = (loop.faultsPerMs * demand.atRandom) / demand.faultsPerSec;
      least = Math.min(least, Math.max(1, wanted * WANTED_SHARE) / often);
    }
    least = Math.min(least, changeMs, (changesIn * 1000) / running);
    for (const { walk, ahead } of demand.walks) {
      const goes = ahead.clearPages > 0 ? ahead.clearPages : ahead.pages;
      least = Math.min(least, Math.max(walksAtLeast, (goes * 1000) / walk.pagesPerSec / running));
    }
    return Math.max(least, LEAST_STEP_MS);
  }

  #serve(demand: Demand, faults: number, waitMs: number): void {
    const seconds = faults / demand.faultsPerSec;
    if (demand.atRandom > 0) this.#missing.takeAround(demand.rates, seconds, this.#neighbours, demand.long);
    for (const { walk, ahead, reach, faultsPerSec, passes } of demand.walks) {
      const brought = faultsPerSec * seconds * Math.max(1, reach * ahead.density);
      this.#missing.takeAlong(walk.region, ahead, passes ?? walk.pagesPerSec * seconds, brought);
    }
    this.#faults += faults;
    this.#waitedMs += faults * waitMs;
    this.#migration.faults = Math.round(this.#faults);
    for (let index = 0; index < WAITS_A_STEP; index += 1) {
      // What is on the link before an answer differs from one to the next.
      this.#migration.builder.fault(millis(waitMs * (0.75 + 0.5 * this.#random())), faults / WAITS_A_STEP);
    }
  }

  #send(count: number, codec: WireForm): void {
    if (count <= 0) return;
    this.#sent += count;
    this.#migration.sent(scaled(this.#page, count), codec);
  }
}

/** The engine is asked: a fault out of the blue, and the last of many that follow each other. */
function reachesOf(least: number): Reaches {
  const prepaging = new Prepaging();
  const block = blockIndex(0);
  const first = prepaging.around(block, pages(0), least);
  let last = first;
  for (let walked = 0; walked < 16; walked += 1)
    last = prepaging.around(block, last.first + last.count, least);
  return { around: first.count, walk: last.count };
}
