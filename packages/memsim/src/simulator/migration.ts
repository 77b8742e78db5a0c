/** One simulated migration while it runs: its clock, the guest's, what went over, and what is noted of it. */
import { ReportBuilder } from '@vmferry/engine/report/builder';
import { bytes, bytesPerSec, millis, PAGE_BYTES, round } from '@vmferry/engine/units';
import { type Load, loadOf, type WireForm } from './content.ts';
import type { Costs } from './costs.ts';
import { type Cells, measure } from './dirty/cells.ts';
import type { Region } from './dirty/regions.ts';
import { WorkingSet } from './dirty/working-set.ts';
import { SimulatedLink } from './link.ts';
import type { Decision, SeriesPoint, Simulation } from './model.ts';
import { adaptiveRate } from './policy/adaptive-rate.ts';
import type { Conductor } from './policy/conductor.ts';
import { enginePolicy } from './policy/engine-policy.ts';

/** Points of a series that are kept; when there are more, every second one goes. */
const MOST_POINTS = 512;
const MOST_DECISIONS = 500;
/** Rounds that are remembered: more than there are batches ahead of the link. */
const RECENT_ROUNDS = 8;
/** Of the time that thorough packing takes, what hasty packing takes. */
const HASTE = 0.5;
/** How well hosts and link work side by side: infinite would be perfectly. */
const OVERLAP = 3.5;
/** QEMU measures a dirty rate for so long. */
const DIRTY_RATE_SECONDS = 1;

export interface Speed {
  /** For the whole load; infinite while the link carries nothing. */
  readonly tookMs: number;
  /** The link is what takes longest. */
  readonly congested: boolean;
  /** Of the time, how much of it the source waits for the link or for the destination, 0 to 1. */
  readonly waitShare: number;
}

export class Migration {
  readonly simulation: Simulation;
  readonly costs: Costs;
  readonly set: WorkingSet;
  readonly link: SimulatedLink;
  readonly builder: ReportBuilder;
  readonly conductor: Conductor;
  readonly decisions: Decision[] = [];
  now = 0;
  /** The workload's own time, in seconds. */
  tau: number;
  delivered = { contentBytes: 0, zeroPages: 0 };
  wireBytes = 0;
  faults = 0;
  /** When the speed of things changed last. */
  changedAt = 0;
  /** Content bytes that had been sent when the last rounds began, the latest first. */
  #contentAt: readonly number[] = [0];
  #guestSpeed = 1;
  #stopped = false;
  /** Share of each cell that was not written since the guest began: until the migration did, or the guest stopped. */
  #virgin: Float64Array;
  /** Share of each cell that lies in each of the guest's places. */
  readonly #within: readonly Float64Array[];
  #series: SeriesPoint[] = [];
  #pointEveryMs = 0;

  constructor(simulation: Simulation) {
    const { guest, link, request } = simulation;
    this.simulation = simulation;
    this.costs = simulation.costs;
    const { places = [] } = guest;
    this.set = new WorkingSet(
      guest.workload,
      Math.round(guest.memoryBytes / PAGE_BYTES),
      places.map(({ region }) => region),
    );
    this.link = new SimulatedLink(link.initial, link.changes, request.streams, link.windowBytes);
    this.tau = guest.ranSeconds;
    this.builder = new ReportBuilder({ guest: guest.name, strategy: request.strategy, startedAt: millis(0) });
    if (request.strategy !== 'auto') this.builder.strategy(request.strategy);
    this.now = this.costs.setupMs + 6 * this.link.roundTripMs(0) + this.link.slowStartMs(0);
    this.tau += this.now / 1000;
    this.builder.firstRound(millis(this.now));
    this.#virgin = this.#untouched();
    this.#within = places.map(({ region }) => shareWithin(this.set.cells, region));
    this.changedAt = this.now;
    this.conductor = simulation.adaptiveRate
      ? adaptiveRate(simulation.adaptiveRate)
      : enginePolicy(
          {
            request,
            memoryBytes: guest.memoryBytes,
            oneLiveRound: guest.oneLiveRound,
            postcopyObstacle: simulation.postcopyObstacle,
          },
          millis(this.now),
        );
    this.point(guest.memoryBytes);
  }

  /** Time goes by; the guest runs, as fast as it is let. */
  pass(ms: number): void {
    const before = this.now;
    this.now += ms;
    this.tau += (ms / 1000) * this.#guestSpeed;
    if (this.link.nextChange(before) <= this.now) this.changed();
  }

  /** Time goes by while the guest stands still. */
  stand(ms: number): void {
    this.now += ms;
  }

  /** Waits, the guest standing still, until the link carries something. False where it never will. */
  awaitLink(): boolean {
    const from = this.link.carriesFrom(this.now, this.conductor.rateLimit);
    if (from === Number.POSITIVE_INFINITY) return false;
    this.stand(from - this.now);
    return true;
  }

  /**
   * Time goes by, the guest standing still, until all is over the link as it changes meanwhile. False where the link
   * carries nothing any more.
   *
   * @param tookMs what all of it would take as things are
   */
  carry(tookMs: () => number): boolean {
    let left = 1;
    while (left > 0) {
      if (!this.awaitLink()) return false;
      const all = tookMs();
      const change = this.link.nextChange(this.now) - this.now;
      if (left * all <= change) {
        this.stand(left * all);
        return true;
      }
      left -= change / all;
      this.stand(change);
    }
    return true;
  }

  /** As `carry`, of so many bytes on the wire. */
  carryBytes(wireBytes: number): boolean {
    return this.carry(() => (wireBytes * 1000) / this.rate);
  }

  changed(): void {
    this.changedAt = this.now;
  }

  throttle(percent: number): void {
    this.#guestSpeed = 1 - percent / 100;
    this.changed();
  }

  /** What the guest wrote while it was being moved holds something now. */
  guestStopped(): void {
    this.#virgin = this.#untouched();
    this.#stopped = true;
    this.builder.stopped();
  }

  guestRuns(): void {
    this.#stopped = false;
  }

  #untouched(): Float64Array {
    return this.set.dirtied(0, this.tau).map((share) => 1 - share);
  }

  /** What a set of pages weighs. */
  loadOf(pages: Float64Array): Load {
    const { cells } = this.set;
    const { content, places = [] } = this.simulation.guest;
    const written = this.writtenOf(pages);
    let virgin = this.size(pages) - written;
    const apart = places.map(({ held }, index) => {
      const within = this.#within[index]!;
      let here = 0;
      for (let cell = 0; cell < pages.length; cell += 1)
        here += pages[cell]! * this.#virgin[cell]! * within[cell]! * cells.count[cell]!;
      virgin -= here;
      return { pages: here, held };
    });
    return loadOf(content, written, Math.max(0, virgin), apart);
  }

  /** Of these pages, how many were written since the guest began. */
  writtenOf(pages: Float64Array): number {
    const { cells } = this.set;
    let written = 0;
    for (let cell = 0; cell < pages.length; cell += 1)
      written += pages[cell]! * (1 - this.#virgin[cell]!) * cells.count[cell]!;
    return written;
  }

  measureDirtyRate(): number {
    const { tau } = this;
    return (this.set.distinctPages(tau, tau + DIRTY_RATE_SECONDS) * PAGE_BYTES) / DIRTY_RATE_SECONDS;
  }

  /**
   * All stages work at once, so the slowest one counts; where the hosts take about as long as the link, now the one
   * waits and now the other, for there is little between them. A guest that stands still leaves them alone.
   *
   * @param moreHostMs what the hosts take besides
   */
  speedOf(load: Load, form: WireForm, moreHostMs = 0): Speed {
    const wire = this.wireOf(load, form);
    const linkMs = wire === 0 ? 0 : (wire * 1000) / this.rate;
    const { sourceMs, destMs } = this.#hostMs(load, form);
    const hostMs = Math.max(sourceMs, destMs) + moreHostMs;
    const bothMs = together(linkMs, hostMs);
    const linkShare = linkMs === Number.POSITIVE_INFINITY ? 1 : bothMs > 0 ? (linkMs / bothMs) ** OVERLAP : 0;
    // Of hosts that are as fast as each other, each waits half of the time.
    const destShare = destMs > 0 ? 1 / (1 + (sourceMs / destMs) ** OVERLAP) : 0;
    return {
      tookMs: this.#stopped ? Math.max(linkMs, hostMs) : bothMs,
      congested: linkMs > hostMs,
      waitShare: linkShare + (1 - linkShare) * destShare,
    };
  }

  /** Bytes on the wire. */
  wireOf(load: Load, form: WireForm): number {
    switch (form) {
      case 'raw':
        return load.plainBytes;
      case 'lz4':
        return load.packedBytes;
      case 'hasty':
        return load.hastyBytes;
      case 'lz4hc':
        return load.hcBytes;
    }
  }

  /** Payload bytes per second that the link carries now. */
  get rate(): number {
    return this.link.rate(this.now, this.conductor.rateLimit);
  }

  #hostMs(load: Load, form: WireForm): { readonly sourceMs: number; readonly destMs: number } {
    const { scanPageUs, sendPageUs, takePageUs, packCores } = this.costs;
    const sourceMs = ((load.rawPages + load.zeroPages) * scanPageUs + load.rawPages * sendPageUs) / 1000;
    const destMs = (load.zeroPages * scanPageUs + load.rawPages * takePageUs) / 1000;
    const packMs = packMsOf(load, form) / packCores;
    return { sourceMs: Math.max(sourceMs, packMs), destMs };
  }

  sent(load: Load, form: WireForm): void {
    const wire = this.wireOf(load, form);
    this.delivered = {
      contentBytes: this.delivered.contentBytes + load.rawPages * PAGE_BYTES,
      zeroPages: this.delivered.zeroPages + load.zeroPages,
    };
    this.wireBytes += wire;
    this.builder.pages(
      { raw: load.rawPages, zero: load.zeroPages },
      bytes((load.rawPages + load.zeroPages) * PAGE_BYTES),
    );
    this.builder.wire(bytes(wire));
  }

  roundEnded(number: number, dirtyRate: number, remainingBytes: number): void {
    this.builder.roundEnd({
      round: round(number),
      now: millis(this.now),
      dirtyBytesPerSec: bytesPerSec(dirtyRate),
    });
    this.#contentAt = [this.delivered.contentBytes, ...this.#contentAt].slice(0, RECENT_ROUNDS);
    this.point(0);
    this.point(remainingBytes);
    // The next round has a load of its own.
    this.changed();
  }

  /** Content bytes of this round and the last ones, the latest first: no more than these can be on their way. */
  get recentRounds(): readonly number[] {
    let until = this.delivered.contentBytes;
    return this.#contentAt.map((from) => {
      const sent = until - from;
      until = from;
      return sent;
    });
  }

  decided(what: string, why: string): void {
    if (this.decisions.length < MOST_DECISIONS) this.decisions.push({ atMs: this.now, what, why });
  }

  point(remainingBytes: number): void {
    const last = this.#series.at(-1);
    if (last !== undefined && this.now > last.atMs && this.now - last.atMs < this.#pointEveryMs) return;
    // Whole bytes: what is left of a subtraction may be next to nothing, or less.
    const left = Math.max(0, Math.round(remainingBytes));
    this.#series.push({ atMs: this.now, remainingBytes: left, faults: this.faults });
    if (this.#series.length <= MOST_POINTS) return;
    this.#series = this.#series.filter((_, index) => index % 2 === 0);
    this.#pointEveryMs = Math.max(this.#pointEveryMs * 2, (this.now / MOST_POINTS) * 2);
  }

  get series(): readonly SeriesPoint[] {
    return this.#series;
  }

  /** Pages of a set. */
  size(pages: Float64Array): number {
    return measure(this.set.cells, pages);
  }
}

/** Of each cell, the share that lies in a region. */
function shareWithin({ first, pages, stretch }: Cells, region: Region): Float64Array {
  const end = region.first + region.pages;
  return new Float64Array(stretch.length).map((_, cell) => {
    const [from, count] = [first[stretch[cell]!]!, pages[stretch[cell]!]!];
    return Math.max(0, Math.min(end, from + count) - Math.max(region.first, from)) / count;
  });
}

function packMsOf(load: Load, form: WireForm): number {
  switch (form) {
    case 'raw':
      return 0;
    case 'lz4':
      return load.packMs;
    case 'hasty':
      return HASTE * load.packMs;
    case 'lz4hc':
      return load.hcPackMs;
  }
}

/** The larger one, or more where both are about the same. */
function together(a: number, b: number): number {
  const [less, more] = a < b ? [a, b] : [b, a];
  if (less <= 0 || more === Number.POSITIVE_INFINITY) return more;
  return more * (1 + (less / more) ** OVERLAP) ** (1 / OVERLAP);
}
