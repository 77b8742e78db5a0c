/** Phases that come and go many times within one step are told from a few moments of it. */
import type { WorkingSet } from '../dirty/working-set.ts';

/** Moments that are looked at. */
export const TURNS = 4;
/** Of their distance, what they lie behind those of the step before: over many steps they come round evenly. */
const GOLDEN = 0.618034;

export interface Turn {
  /** A moment of it, and the share of the step that it stands for. */
  readonly at: number;
  readonly share: number;
}

/**
 * The turns of so many seconds from `from` on, each once.
 *
 * @param step number of the step
 */
export function turnsOf(set: WorkingSet, from: number, seconds: number, step: number): Turn[] {
  const turns = new Map<string, Turn>();
  for (let index = 0; index < TURNS; index += 1) {
    const at = from + (seconds * (index + ((step * GOLDEN) % 1))) / TURNS;
    const name = set.turn(at);
    const known = turns.get(name);
    turns.set(name, { at: known?.at ?? at, share: (known?.share ?? 0) + 1 / TURNS });
  }
  return [...turns.values()];
}
