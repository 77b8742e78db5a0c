/** Which codec bulk pages take: what the operator fixed, or the engine's adaptive choice. */

import { machineNow } from '@vmferry/agent-core/machine';
import type { MigrateRequest } from '@vmferry/engine/options';
import { type CodecState, decideCodec, startCodec } from '@vmferry/engine/policy/codec';
import type { Millis } from '@vmferry/engine/units';
import type { PackCodec } from '@vmferry/native/kernels';

export interface CodecObservation {
  /** The sender waits for the window at this moment. */
  readonly congested: boolean;
  /** Totals so far. */
  readonly contentBytes: number;
  readonly wireBytes: number;
}

export class CodecChooser {
  readonly #mode: MigrateRequest['compress'];
  readonly #onChange: (why: string) => void;
  #state: CodecState = startCodec('lz4');
  #last: { readonly at: number; readonly contentBytes: number; readonly wireBytes: number };

  /** `began`: when the migration did, in monotonic milliseconds. */
  constructor(mode: MigrateRequest['compress'], began: Millis, onChange: (why: string) => void) {
    this.#mode = mode;
    this.#last = { at: began, contentBytes: 0, wireBytes: 0 };
    this.#onChange = onChange;
  }

  get codec(): PackCodec {
    if (this.#mode === 'off') return 'none';
    if (this.#mode !== 'auto') return this.#mode;
    return this.#state.codec === 'lz4' ? 'lz4' : 'none';
  }

  observe({ congested, contentBytes, wireBytes }: CodecObservation): void {
    if (this.#mode !== 'auto') return;
    const now = machineNow();
    const content = contentBytes - this.#last.contentBytes;
    const wire = wireBytes - this.#last.wireBytes;
    const passedMs = Math.max(1, now - this.#last.at);
    this.#last = { at: now, contentBytes, wireBytes };
    if (content === 0) return;
    const { state, decision } = decideCodec(
      this.#state,
      {
        blockedShare: congested ? 1 : 0,
        guestBytesPerSec: (content * 1000) / passedMs,
        ...(this.#state.codec === 'lz4' && wire > 0 ? { ratio: content / wire } : {}),
      },
      now,
    );
    this.#state = state;
    if (decision.change !== null) this.#onChange(decision.change);
  }
}
