/** A destination that takes nothing any more: what that means depends on how far the migration is. */
import type { Failure } from '@vmferry/engine/switchover/protocol';
import type { SourceState } from '@vmferry/engine/switchover/source-state';
import type { Millis } from '@vmferry/engine/units';

/** Of a guest that runs, and of whose memory nothing moves: that would go on for ever. */
const PRECOPY_MS = 60_000;
/** Past the deadline, with all decided. */
const LATE_MS = 5000;

export interface StallLimits {
  /** Of a post-copy, where a hypervisor itself would wait for ever. */
  readonly stalledMs: number;
  /** For a destination that examines the guest before it says that all is there. */
  readonly examinedMs: number;
  /** The operator's. */
  readonly deadlineMs: number | undefined;
}

export interface StallSight {
  readonly state: SourceState;
  /** Of anything: more than before means that the destination has taken something. */
  readonly taken: number;
  /** The guest's memory is being sent: all that comes before it takes its time. */
  readonly begun: boolean;
  /** The guest stands still since; undefined while it runs. */
  readonly stopped: Millis | undefined;
  /** The policy decides nothing any more. */
  readonly decided: boolean;
  readonly elapsedMs: number;
  readonly examines: boolean;
}

export class StallWatch {
  readonly #limits: StallLimits;
  #taken: { readonly amount: number; readonly at: Millis };

  /** `now` and all later ones are stamps of the switchover machine's clock. */
  constructor(limits: StallLimits, now: Millis) {
    this.#limits = limits;
    this.#taken = { amount: 0, at: now };
  }

  /** Why it is to be given up; the same words each time. */
  look(sight: StallSight, now: Millis): Failure | undefined {
    if (sight.taken !== this.#taken.amount || !sight.begun) this.#taken = { amount: sight.taken, at: now };
    const { phase, mode } = sight.state;
    if (phase === 'copying') return this.#copying(sight, now);
    const belongsThere = phase === 'finishing' || (phase === 'committed' && mode === 'postcopy');
    return belongsThere ? this.#committed(sight, now) : undefined;
  }

  /** A guest that stands still while nobody takes the rest of it is let run again. */
  #copying({ state, stopped, decided, elapsedMs }: StallSight, now: Millis): Failure | undefined {
    const { readyMs } = state.limits;
    const { deadlineMs } = this.#limits;
    if (stopped !== undefined && now - Math.max(this.#taken.at, stopped) >= readyMs) {
      const why = `The destination has taken nothing for ${readyMs} ms while the guest stood still.`;
      return { code: 'E_TIMEOUT', why };
    }
    if (stopped === undefined && now - this.#taken.at >= PRECOPY_MS) {
      const why = `The destination has taken nothing of the guest's memory for ${PRECOPY_MS} ms.`;
      return { code: 'E_STALLED', why };
    }
    if (!decided || deadlineMs === undefined || elapsedMs < deadlineMs) return undefined;
    if (now - this.#taken.at < LATE_MS) return undefined;
    const why = `The deadline of ${deadlineMs} ms is over, and the destination has taken nothing for ${LATE_MS} ms.`;
    return { code: 'E_DEADLINE', why };
  }

  /** After the commit the guest cannot run here any more: an operator has to know. */
  #committed({ state, examines }: StallSight, now: Millis): Failure | undefined {
    const stoodMs = now - Math.max(this.#taken.at, state.since);
    const { stalledMs, examinedMs } = this.#limits;
    if (!state.ended) {
      const why = `The destination has taken nothing for ${stalledMs} ms, and memory of the guest is still missing there.`;
      return stoodMs >= stalledMs ? { code: 'E_STALLED', why } : undefined;
    }
    const limitMs = examines ? examinedMs : stalledMs;
    if (state.phase !== 'finishing' || stoodMs < limitMs) return undefined;
    const why = `The destination has taken all of the guest's memory, and has not said within ${limitMs} ms that none is missing.`;
    return { code: 'E_STALLED', why };
  }
}
