/** Which codec pages in bulk take: what was asked for, or the engine's choice, looked at as often as the agent does. */
import type { MigrateRequest } from '@vmferry/engine/options';
import { type CodecState, decideCodec, startCodec } from '@vmferry/engine/policy/codec';
import { millis } from '@vmferry/engine/units';
import type { BulkCodec } from './content.ts';

/** How often the agent looks, in milliseconds. */
export const LOOK_MS = 200;
/** A codec that was kept for so long under the same conditions stays. */
const SETTLED_MS = 3000;

export interface CodecTotals {
  readonly contentBytes: number;
  readonly wireBytes: number;
}

export class CodecChoice {
  readonly #mode: MigrateRequest['compress'];
  #state: CodecState = startCodec('lz4');
  #last: CodecTotals & { readonly at: number };

  constructor(mode: MigrateRequest['compress'], now: number) {
    this.#mode = mode;
    this.#last = { at: now, contentBytes: 0, wireBytes: 0 };
  }

  get codec(): BulkCodec {
    if (this.#mode === 'off') return 'raw';
    return this.#mode === 'auto' ? this.#state.codec : this.#mode;
  }

  /** Nothing changes any more as long as conditions stay as they are since `changedAt`. */
  settled(now: number, changedAt: number): boolean {
    if (this.#mode !== 'auto') return true;
    const { since, holdMs } = this.#state;
    return since !== null && now - since > holdMs + SETTLED_MS && now - changedAt > SETTLED_MS;
  }

  /**
   * True when the codec has changed.
   *
   * @param blockedShare of the time, how much of it frames wait for the link, 0 to 1
   */
  look(blockedShare: number, { contentBytes, wireBytes }: CodecTotals, now: number): boolean {
    if (this.#mode !== 'auto') return false;
    const content = contentBytes - this.#last.contentBytes;
    const wire = wireBytes - this.#last.wireBytes;
    const passedMs = Math.max(1, now - this.#last.at);
    this.#last = { at: now, contentBytes, wireBytes };
    if (content <= 0) return false;
    const before = this.#state.codec;
    this.#state = decideCodec(
      this.#state,
      {
        blockedShare,
        guestBytesPerSec: (content * 1000) / passedMs,
        ...(before === 'lz4' && wire > 0 ? { ratio: content / wire } : {}),
      },
      millis(now),
    ).state;
    return this.#state.codec !== before;
  }
}
