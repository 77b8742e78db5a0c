/** What the link carries, told from what the destination has taken so far. Sans I/O. */
import { type BytesPerSec, bytesPerSec, type Millis, PAGE_BYTES } from '../units.ts';

/** Totals so far: content bytes of raw pages that the destination has taken, and pages without content. */
export interface Delivered {
  readonly contentBytes: number;
  readonly zeroPages: number;
}

/** A shorter time says nothing about the link. */
const LEAST_MEASURED_MS = 50;

export class LinkMeter {
  #last: Delivered & { readonly at: Millis };
  #bandwidth: BytesPerSec = bytesPerSec(0);
  #takenAt: Millis;

  /** `now` and all later ones are stamps of one clock. */
  constructor(now: Millis) {
    this.#last = { at: now, contentBytes: 0, zeroPages: 0 };
    this.#takenAt = now;
  }

  /** Guest bytes per second; 0 before it was measured. */
  get bandwidth(): BytesPerSec {
    return this.#bandwidth;
  }

  /** When the destination was last seen to have taken anything. */
  get takenAt(): Millis {
    return this.#takenAt;
  }

  /** Since the last look, where what was sent says anything about the link. */
  look({ contentBytes, zeroPages }: Delivered, now: Millis): void {
    const passedMs = now - this.#last.at;
    if (passedMs < LEAST_MEASURED_MS) return;
    const content = contentBytes - this.#last.contentBytes;
    const zeros = (zeroPages - this.#last.zeroPages) * PAGE_BYTES;
    if (content > 0 || zeros > 0) this.#takenAt = now;
    this.#last = { at: now, contentBytes, zeroPages };
    if (zeros > content) return;
    this.#bandwidth = bytesPerSec((content * 1000) / passedMs);
  }
}
