/**
 * Whether what comes before the guest's memory still leads anywhere: the hypervisors get ready for each other, and disks
 * are copied. Nothing but an end can be decided meanwhile: neither a switchover nor post-copy can begin before. And a
 * hypervisor may wait without limit for one that does not answer, on either host.
 */
import type { SourceProgress } from '@vmferry/engine/guest';
import type { StallAction } from '@vmferry/engine/policy/convergence';
import { duration, size } from '@vmferry/engine/policy/words';
import type { Failure } from '@vmferry/engine/switchover/protocol';
import type { Millis } from '@vmferry/engine/units';

/** Storage may be away for a while, and comes back. */
export const DISKS_STALLED_MS = 60_000;
/** A hypervisor that waits for a disk's first answer hears nobody, and its guest stands still. */
const UNANSWERED_MS = 10_000;
/** A QEMU of much memory, of huge pages above all, takes minutes to start. */
const BEGUN_MS = 300_000;
/** What is left is compared over spans that a burst of the guest's writes does not fill. */
const SPAN_MS = 30_000;
/** More than one: a disk whose copying begins after another's, or whose size is found out late, makes what is left more. */
const UNSHRUNK_SPANS = 3;

export interface SetUpLimits {
  /** Disks are copied. Without them a hypervisor that does not answer is waited for as long as one that has not begun. */
  readonly copies: boolean;
  /** Without anything copied, though copying has begun: hypervisors themselves would wait for ever. */
  readonly stalledMs: number;
  /** The operator's. */
  readonly deadlineMs: number | undefined;
  readonly onStall: StallAction | undefined;
}

export interface SetUpSight {
  /** As heard last; undefined before copying has begun. */
  readonly disks: SourceProgress['disks'];
  /** Since the migration began. */
  readonly elapsedMs: number;
  /** Since the hypervisor was asked what it has not answered yet. */
  readonly unansweredMs: number;
}

export type SetUpVerdict =
  | { readonly do: 'wait' }
  /** Once. */
  | { readonly do: 'tell'; readonly why: string }
  | { readonly do: 'give-up'; readonly failure: Failure };

const WAIT: SetUpVerdict = { do: 'wait' };

export class SetUp {
  readonly #limits: SetUpLimits;
  /** All that can be seen to move. */
  #moved: { readonly amount: number | undefined; readonly at: Millis } | undefined;
  #copied: { readonly amount: number; readonly at: Millis } | undefined;
  #span: { readonly since: Millis; readonly least: number } | undefined;
  /** In the span before. */
  #leastBefore: number | undefined;
  /** One after the other. */
  #unshrunkSpans = 0;
  #told = false;

  constructor(limits: SetUpLimits) {
    this.#limits = limits;
  }

  /** @param now a stamp of one clock */
  look({ disks, elapsedMs, unansweredMs }: SetUpSight, now: Millis): SetUpVerdict {
    const left = disks ? disks.totalBytes - disks.copiedBytes : undefined;
    const { copies, deadlineMs, stalledMs } = this.#limits;
    if (copies && unansweredMs >= Math.min(UNANSWERED_MS, stalledMs)) {
      const why = `The source's hypervisor has not answered for ${duration(unansweredMs)}. Most often it waits for a disk of the destination's, and the guest with it.`;
      return giveUp('E_STALLED', why);
    }
    if (deadlineMs !== undefined && elapsedMs >= deadlineMs) {
      const what = left === undefined ? 'nothing of the guest is' : `${size(left)} of its disks are not`;
      return giveUp('E_DEADLINE', `The deadline of ${duration(deadlineMs)} is over, and ${what} copied yet.`);
    }
    if (!this.#moved || this.#moved.amount !== disks?.copiedBytes)
      this.#moved = { amount: disks?.copiedBytes, at: now };
    if (now - this.#moved.at >= BEGUN_MS) {
      const why = `The source's hypervisor has not begun to send the guest's memory, and nothing of its disks has moved for ${duration(BEGUN_MS)}. Most often a hypervisor of either host does not answer: their logs may say why.`;
      return giveUp('E_STALLED', why);
    }
    if (disks === undefined || left === undefined) return WAIT;
    // With nothing left another disk may be about to begin: QEMU looks through it first, and may have it zeroed.
    if (this.#copied?.amount !== disks.copiedBytes || left <= 0)
      this.#copied = { amount: disks.copiedBytes, at: now };
    this.#measure(left, now);
    if (now - this.#copied.at >= stalledMs) {
      const why = `Nothing of the disks has been copied for ${duration(stalledMs)}, and ${size(left)} are left.`;
      return giveUp('E_STALLED', why);
    }
    return this.#unshrunkSpans >= UNSHRUNK_SPANS ? this.#unshrunk(left) : WAIT;
  }

  #measure(left: number, now: Millis): void {
    const { since, least } = this.#span ?? { since: now, least: left };
    if (now - since < SPAN_MS) {
      this.#span = { since, least: Math.min(least, left) };
      return;
    }
    const shrunk = this.#leastBefore === undefined || least < this.#leastBefore;
    this.#unshrunkSpans = shrunk ? 0 : this.#unshrunkSpans + 1;
    this.#leastBefore = least;
    this.#span = { since: now, least: left };
  }

  /** The guest writes as fast as its disks are copied. */
  #unshrunk(left: number): SetUpVerdict {
    const why = `What is left of the disks has not become less for ${duration(UNSHRUNK_SPANS * SPAN_MS)}, and is ${size(left)}: the guest writes to them as fast as they are copied.`;
    if (this.#limits.onStall === 'abort') {
      return giveUp('E_STALLED', `${why} The operator wants no other means to be taken.`);
    }
    if (this.#told) return WAIT;
    this.#told = true;
    return { do: 'tell', why: `${why} They are copied on, until the deadline if there is one.` };
  }
}

function giveUp(code: Failure['code'], why: string): SetUpVerdict {
  return { do: 'give-up', failure: { code, why } };
}
