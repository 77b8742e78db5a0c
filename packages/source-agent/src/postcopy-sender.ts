/**
 * Post-copy's traffic: faults first, then whatever lies near them, and the rest as the link has room.
 *
 *     fault ──▶ waits in the backlog, or can be read from the stopped guest? ── yes ──▶ express
 *                  └─ no ──▶ asked of the hypervisor ──▶ express when it comes
 *     pages around it ──▶ express behind it, compressed (pre-paging)
 *     any other page ──▶ backlog ──▶ bulk, within a budget that shrinks while faults are frequent
 *
 * What is in flight in bulk delays the next fault, so the budget is nothing after a fault and doubles as long
 * as none comes, more slowly while the guest has just arrived. Until the guest runs on the destination there is none
 * at all: its devices' state is being loaded there, which takes faults too, and its first steps are nothing but faults.
 */
import { weightOf } from '@vmferry/engine/carriage/batch-limits';
import type { PageBatch, PageRange, SourceGuest } from '@vmferry/engine/guest';
import { Backlog } from '@vmferry/engine/postcopy/backlog';
import {
  ARRIVAL_MS,
  bulkBudget,
  GRANT_EVERY_MS,
  STARVED_MS,
  starvedGrant,
} from '@vmferry/engine/postcopy/bulk-budget';
import { answerAlong, neighbourhood, Prepaging } from '@vmferry/engine/postcopy/prepaging';
import { pages } from '@vmferry/engine/units';
import type { Carrier } from './carrier.ts';

/** What is read from the hypervisor ahead of the link while no fault waits, by weight. */
const READ_AHEAD = 1024 * 1024;
/** How much a new answer's time weighs against those before. */
const ANSWER_WEIGHT = 0.2;
/** An answer that stays out this long (the page was on its way already) no longer holds up the bulk. */
const ANSWER_MS = 50;

export interface PostcopySenderOptions {
  readonly guest: SourceGuest;
  readonly carrier: Pick<Carrier, 'express' | 'bulk' | 'bulkOutstanding' | 'linkBytesPerSec'>;
  /** The most that may wait, by weight. */
  readonly backlogBytes: number;
  /** The most pages that one answer may have: see `expressPages`. */
  readonly answerPages: number;
  /** A batch that was read from the stopped guest, and so does not come with its stream. */
  readonly onTaken: (batch: PageBatch) => void;
  readonly onFailure: (error: unknown) => void;
}

export class PostcopySender {
  readonly #options: PostcopySenderOptions;
  readonly #backlog = new Backlog();
  readonly #prepaging = new Prepaging();
  readonly #flying = new Set<Pick<PageBatch, 'block' | 'pages'>>();
  #lastFaultAt = Number.NEGATIVE_INFINITY;
  /** Faults asked of the hypervisor and not answered yet, and since when. */
  readonly #unanswered = new Map<PageRange, number>();
  #faults = 0;
  /** From a fault's arrival until the destination has taken its page, on average. */
  #answerMs = 0;
  #pumping = false;
  /** Express batches that are being made ready. */
  #expressing = 0;
  /** Content bytes of express batches that have not arrived. */
  #expressBytes = 0;
  /** What the background's pages of zeroes that have not arrived weigh. */
  #zeroesOutstanding = 0;
  #closed = false;
  /** Content bytes of the background that may go although faults come, and when there will be more. */
  #granted = 0;
  #nextGrantAt = Number.POSITIVE_INFINITY;
  /** When the destination said that it runs the guest. */
  #runsSince: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #roomWaiters: (() => void)[] = [];

  constructor(options: PostcopySenderOptions) {
    this.#options = options;
  }

  get faults(): number {
    return this.#faults;
  }

  /** Content bytes that wait for the link, or answer faults and have not arrived. */
  get heldBytes(): number {
    return this.#backlog.bytes + this.#expressBytes;
  }

  /** A vCPU on the destination waits. */
  fault(ranges: readonly PageRange[]): void {
    const now = performance.now();
    this.#lastFaultAt = now;
    this.#startWaiting(now);
    const answered = (): void => this.#answered(performance.now() - now);
    for (const range of ranges) {
      this.#faults += 1;
      const found = this.#backlog.fault(range);
      for (const batch of found) this.#express(batch, 'none', answered);
      // What is on its way needs no asking, and the hypervisor would not answer.
      if (found.length === 0 && !this.#isFlying(range) && !this.#take(answerAlong(range), 'none', answered)) {
        this.#unanswered.set(range, performance.now());
        this.#options.guest.requestPages([range], 'express');
      }
      this.#sendAlong(range);
    }
    // The answer stands behind what the hypervisor has written already: it must be read.
    this.#wakeReaders();
  }

  /** The destination runs the guest: its first faults are about to come. */
  guestRuns(): void {
    this.#runsSince = performance.now();
    this.#lastFaultAt = this.#runsSince;
    this.#nextGrantAt = this.#runsSince + ARRIVAL_MS;
  }

  /** From here on the background has had to wait. */
  #startWaiting(now: number): void {
    if (this.#nextGrantAt === Number.POSITIVE_INFINITY) this.#nextGrantAt = now + STARVED_MS;
  }

  /** Reads the pages from the stopped guest and sends them. False where that cannot be done. */
  #take(range: PageRange, codec: 'none' | 'lz4', onLanded?: () => void): boolean {
    for (const piece of inPieces(range, this.#options.answerPages)) {
      const taken = this.#options.guest.takePages(piece);
      if (taken === undefined) return false;
      if (taken === 'sent') continue;
      this.#options.onTaken(taken);
      this.#express(taken, codec, onLanded);
    }
    return true;
  }

  /** What the guest is likely to want next. */
  #sendAlong({ block, first }: PageRange): void {
    const { linkBytesPerSec } = this.#options.carrier;
    const around = this.#prepaging.around(block, first, neighbourhood(linkBytesPerSec));
    for (const batch of this.#backlog.take(around)) this.#express(batch, 'lz4');
    this.#take(around, 'lz4');
  }

  /** Resolves when the next item should be read from the hypervisor. Takes the batch over. */
  async add(batch: PageBatch): Promise<void> {
    if (batch.lane === 'express') {
      this.#answer(batch);
      this.#express(batch);
      return;
    }
    if (this.#runsSince === undefined) this.#startWaiting(performance.now());
    this.#backlog.add(batch);
    this.#pump();
    while (this.#full && !this.#closed) {
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
  }

  /** Resolves when nothing waits any more. */
  async flush(): Promise<void> {
    while (!this.#closed) {
      // Only then: a pump with nothing to do ends at once, and waking up from it would be waiting without end.
      if (!this.#backlog.empty) this.#pump();
      else if (!this.#pumping && this.#expressing === 0) return;
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#backlog.drop();
    this.#wakeReaders();
  }

  /** While a fault waits for its answer, reading goes on beyond what the link needs. */
  get #full(): boolean {
    const limit = this.#waiting
      ? this.#options.backlogBytes
      : Math.min(this.#options.backlogBytes, READ_AHEAD);
    return this.#backlog.weight >= limit;
  }

  get #waiting(): boolean {
    const now = performance.now();
    for (const [range, since] of this.#unanswered) {
      if (now - since < ANSWER_MS) return true;
      this.#unanswered.delete(range);
    }
    return false;
  }

  #answer({ block, pages }: PageBatch): void {
    for (const range of this.#unanswered.keys()) {
      const { first, count } = range;
      if (range.block === block && pages.some((page) => page >= first && page < first + count)) {
        this.#unanswered.delete(range);
      }
    }
  }

  #answered(ms: number): void {
    this.#answerMs += (ms - this.#answerMs) * (this.#answerMs === 0 ? 1 : ANSWER_WEIGHT);
  }

  get #budget(): number {
    if (this.#runsSince === undefined) return 0;
    const { linkBytesPerSec } = this.#options.carrier;
    const now = performance.now();
    return bulkBudget(now - this.#lastFaultAt, {
      answerMs: this.#answerMs,
      linkBytesPerSec,
      arrivedMs: now - this.#runsSince,
    });
  }

  #express(batch: PageBatch, codec: 'none' | 'lz4' = 'none', onLanded: () => void = () => {}): void {
    const contentBytes = batch.content.length;
    this.#expressing += 1;
    this.#expressBytes += contentBytes;
    const land = this.#fly(batch);
    this.#options.carrier
      .express(batch, codec, () => {
        land();
        this.#expressBytes -= contentBytes;
        onLanded();
      })
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#expressing -= 1;
        this.#wakeReaders();
      });
  }

  #pump(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    this.#drain()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#pumping = false;
        this.#wakeReaders();
      });
  }

  async #drain(): Promise<void> {
    const { carrier } = this.#options;
    while (!this.#closed && !this.#backlog.empty) {
      if (!this.#mayGo()) {
        await this.#pause();
        continue;
      }
      const batch = this.#backlog.next();
      if (!batch) return;
      const land = this.#fly(batch);
      const weight = weightOf(batch.content.length, batch.pages.length);
      const zeroes = weight - batch.content.length;
      this.#granted = Math.max(0, this.#granted - weight);
      this.#zeroesOutstanding += zeroes;
      await carrier.bulk(batch, () => {
        land();
        this.#zeroesOutstanding -= zeroes;
      });
      this.#wakeReaders();
    }
  }

  /** Whether the background has its turn: there is room beside the faults, or it has waited long enough. */
  #mayGo(): boolean {
    const { bulkOutstanding, linkBytesPerSec } = this.#options.carrier;
    const now = performance.now();
    if (!this.#waiting && bulkOutstanding + this.#zeroesOutstanding < this.#budget) {
      this.#nextGrantAt = now + STARVED_MS;
      return true;
    }
    if (now >= this.#nextGrantAt) {
      this.#granted = starvedGrant(linkBytesPerSec);
      this.#nextGrantAt = now + GRANT_EVERY_MS;
    }
    return this.#granted > 0;
  }

  /** Notes what is on its way, until the returned function is called. */
  #fly({ block, pages }: PageBatch): () => void {
    const flight = { block, pages };
    this.#flying.add(flight);
    return () => this.#flying.delete(flight);
  }

  #isFlying({ block, first, count }: PageRange): boolean {
    for (const flight of this.#flying) {
      if (flight.block === block && flight.pages.some((page) => page >= first && page < first + count))
        return true;
    }
    return false;
  }

  /** Without the link nothing can be sent, and what waits must not be tried again and again. */
  #fail(error: unknown): void {
    this.close();
    this.#options.onFailure(error);
  }

  /** Until there may be room: soon, or when a delivery is reported. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#resume = resolve;
      this.#timer = setTimeout(resolve, 1);
    });
  }

  #resume: () => void = () => {};

  /** The destination has taken something. */
  delivered(): void {
    this.#resume();
  }

  #wakeReaders(): void {
    for (const resolve of this.#roomWaiters.splice(0)) resolve();
  }
}

function* inPieces({ block, first, count }: PageRange, most: number): Generator<PageRange> {
  for (let at = 0; at < count; at += most) {
    yield { block, first: pages(first + at), count: pages(Math.min(most, count - at)) };
  }
}
