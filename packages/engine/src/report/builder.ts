/**
 * Collects a migration's figures while it runs. Nothing is estimated: what was not measured stays 0, and
 * a note says so. Memory is bounded, however long the migration takes.
 */
import type { ErrorReport } from '../errors.ts';
import type { Strategy } from '../options.ts';
import type { Bytes, BytesPerSec, Millis, Round } from '../units.ts';
import { Quantiles } from './quantiles.ts';
import type { MigrationReport, Outcome, RoundRow } from './report.ts';

/** Rows of rounds that are kept; more are merged in pairs. */
export const MAX_ROUND_ROWS = 1000;
/** Notes that are kept, each once. */
const MAX_NOTES = 100;

export type PageTally = Partial<Record<'raw' | 'zero' | 'same' | 'delta', number>>;
export type DowntimePart = keyof MigrationReport['downtime'];

interface Span {
  readonly pages: number;
  readonly rawBytes: number;
  readonly wireBytes: number;
}

export class ReportBuilder {
  readonly #guest: string;
  readonly #startedAt: number;
  readonly #tally = { raw: 0, zero: 0, same: 0, delta: 0 };
  readonly #faults = new Quantiles();
  readonly #notes = new Set<string>();
  readonly #parts: Partial<Record<DowntimePart, number>> = {};
  #strategy: Strategy;
  #rounds: RoundRow[] = [];
  #roundsMerged = false;
  #rawBytes = 0;
  #wireBytes = 0;
  #roundStart: Span = { pages: 0, rawBytes: 0, wireBytes: 0 };
  #roundStartedAt: number;
  /** Rounds that are over, and whose figures are not known yet. */
  readonly #roundsOver = new Map<Round, { readonly span: Span; readonly at: Millis }>();
  #downtime: { readonly ms: number; readonly uncertaintyMs: number } | undefined;
  #stopped = false;
  #reason = '';
  #link: MigrationReport['link'] | undefined;
  #announce: MigrationReport['announce'] | undefined;

  /** `startedAt` and every later `now` are stamps of one clock. */
  constructor(start: { readonly guest: string; readonly strategy: Strategy; readonly startedAt: Millis }) {
    this.#guest = start.guest;
    this.#strategy = start.strategy;
    this.#startedAt = start.startedAt;
    this.#roundStartedAt = start.startedAt;
  }

  get rawBytes(): number {
    return this.#rawBytes;
  }

  get wireBytes(): number {
    return this.#wireBytes;
  }

  get faults(): number {
    return this.#faults.count;
  }

  strategy(chosen: Strategy): void {
    this.#strategy = chosen;
  }

  /** Pages that were sent, by kind, and the guest memory they stand for. */
  pages(sent: PageTally, rawBytes: Bytes): void {
    this.#tally.raw += sent.raw ?? 0;
    this.#tally.zero += sent.zero ?? 0;
    this.#tally.same += sent.same ?? 0;
    this.#tally.delta += sent.delta ?? 0;
    this.#rawBytes += rawBytes;
  }

  /** Bytes that went over the link for whatever reason. */
  wire(sent: Bytes): void {
    this.#wireBytes += sent;
  }

  /** The first round begins now; until told, it begins with the migration. */
  firstRound(now: Millis): void {
    this.#roundStart = this.#span();
    this.#roundStartedAt = now;
  }

  /** All that a round sends was sent; its `roundEnd` may come later. */
  roundOver(round: Round, now: Millis): void {
    this.#roundsOver.set(round, { span: this.#span(), at: now });
  }

  /** Closes a round with everything that was sent since the one before until it was over, and returns its row. */
  roundEnd(end: {
    readonly round: Round;
    readonly now: Millis;
    readonly dirtyBytesPerSec: BytesPerSec;
  }): RoundRow {
    const { span, at } = this.#roundsOver.get(end.round) ?? { span: this.#span(), at: end.now };
    for (const round of this.#roundsOver.keys()) if (round <= end.round) this.#roundsOver.delete(round);
    const durationMs = Math.max(0, at - this.#roundStartedAt);
    const rawBytes = span.rawBytes - this.#roundStart.rawBytes;
    const row: RoundRow = {
      round: end.round,
      pages: span.pages - this.#roundStart.pages,
      rawBytes,
      wireBytes: span.wireBytes - this.#roundStart.wireBytes,
      durationMs,
      dirtyBytesPerSec: end.dirtyBytesPerSec,
      bandwidthBytesPerSec: perSecond(rawBytes, durationMs),
    };
    this.#roundStart = span;
    this.#roundStartedAt = at;
    this.#rounds.push(row);
    if (this.#rounds.length > MAX_ROUND_ROWS) this.#mergeRounds();
    return row;
  }

  /** A vCPU waited this long for a page; `times`: so often. */
  fault(waitedMs: Millis, times = 1): void {
    this.#faults.add(waitedMs, times);
  }

  switchover(reason: string): void {
    this.#reason = reason;
  }

  /** The guest was stopped on the source. */
  stopped(): void {
    this.#stopped = true;
  }

  downtime(measured: { readonly downtimeMs: Millis; readonly uncertaintyMs: Millis }): void {
    this.#stopped = true;
    this.#downtime = { ms: measured.downtimeMs, uncertaintyMs: measured.uncertaintyMs };
  }

  downtimePart(part: DowntimePart, took: Millis): void {
    this.#parts[part] = took;
  }

  link(link: MigrationReport['link']): void {
    this.#link = { ...link };
  }

  announced(announce: MigrationReport['announce']): void {
    this.#announce = { ...announce, interfaces: [...announce.interfaces] };
  }

  /** Something that an operator should know although nothing failed. Said twice it is kept once. */
  note(text: string): void {
    if (this.#notes.size < MAX_NOTES) this.#notes.add(text);
  }

  build(end: {
    readonly outcome: Outcome;
    readonly now: Millis;
    readonly error?: ErrorReport | null;
  }): MigrationReport {
    const notes = [...this.#notes];
    if (this.#roundsMerged)
      notes.push('There were many rounds: rows of the earlier ones stand for several rounds.');
    const missing = end.outcome === 'refused' ? [] : this.#notMeasured();
    if (missing.length > 0) notes.push(`Not measured in this run, shown as 0: ${missing.join(', ')}.`);
    return {
      schema: 1,
      outcome: end.outcome,
      strategy: this.#strategy,
      guest: this.#guest,
      totalMs: Math.max(0, end.now - this.#startedAt),
      downtimeMs: this.#downtime?.ms ?? 0,
      downtimeUncertaintyMs: this.#downtime?.uncertaintyMs ?? 0,
      downtime: {
        finalPagesMs: this.#parts.finalPagesMs ?? 0,
        deviceStateMs: this.#parts.deviceStateMs ?? 0,
        commitMs: this.#parts.commitMs ?? 0,
        resumeMs: this.#parts.resumeMs ?? 0,
      },
      switchover: { reason: this.#reason },
      rounds: [...this.#rounds],
      pages: { ...this.#tally },
      rawBytes: this.#rawBytes,
      wireBytes: this.#wireBytes,
      faults: {
        count: this.#faults.count,
        p50Ms: this.#faults.quantile(0.5),
        p99Ms: this.#faults.quantile(0.99),
        maxMs: this.#faults.max,
      },
      link: this.#link ?? { streams: 0, reconnects: 0, tls: false },
      announce: this.#announce ?? { frames: 0, interfaces: [], underWay: false },
      notes,
      error: end.error ?? null,
    };
  }

  #span(): Span {
    const { raw, zero, same, delta } = this.#tally;
    return { pages: raw + zero + same + delta, rawBytes: this.#rawBytes, wireBytes: this.#wireBytes };
  }

  #notMeasured(): string[] {
    const missing: string[] = [];
    if (this.#stopped && this.#downtime === undefined) missing.push('the downtime');
    if (this.#stopped) {
      for (const [part, name] of PART_NAMES) if (this.#parts[part] === undefined) missing.push(name);
    }
    if (this.#link === undefined) missing.push('the link');
    return missing;
  }

  #mergeRounds(): void {
    this.#roundsMerged = true;
    const merged: RoundRow[] = [];
    for (let at = 0; at < this.#rounds.length; at += 2) {
      const first = this.#rounds[at]!;
      const second = this.#rounds[at + 1];
      merged.push(second === undefined ? first : mergeRows(first, second));
    }
    this.#rounds = merged;
  }
}

const PART_NAMES: readonly (readonly [DowntimePart, string])[] = [
  ['finalPagesMs', 'the time of the final pages'],
  ['deviceStateMs', 'the time of the device state'],
  ['commitMs', 'the time of the commit'],
  ['resumeMs', 'the time of the resumption'],
];

/** One row for two rounds that followed each other; it bears the later one's number. */
function mergeRows(first: RoundRow, second: RoundRow): RoundRow {
  const durationMs = first.durationMs + second.durationMs;
  const rawBytes = first.rawBytes + second.rawBytes;
  const dirtied = first.dirtyBytesPerSec * first.durationMs + second.dirtyBytesPerSec * second.durationMs;
  return {
    round: second.round,
    pages: first.pages + second.pages,
    rawBytes,
    wireBytes: first.wireBytes + second.wireBytes,
    durationMs,
    dirtyBytesPerSec: durationMs > 0 ? dirtied / durationMs : second.dirtyBytesPerSec,
    bandwidthBytesPerSec: perSecond(rawBytes, durationMs),
  };
}

function perSecond(amount: number, durationMs: number): number {
  return durationMs > 0 ? (amount * 1000) / durationMs : 0;
}
