/**
 * What the end of the operator's time means while memory is sent with the guest running. Pure.
 *
 * Where there are many rounds their judgement knows best (`convergence`). Whatever was asked for, a guest is not stopped
 * for a destination that takes nothing: it would stand still until somebody gives up.
 */
import type { StallAction } from './convergence.ts';
import { duration, size } from './words.ts';

export interface Lateness {
  /** Since the migration began. */
  readonly elapsedMs: number;
  /** Since the destination took anything. */
  readonly stoodMs: number;
  readonly remainingBytes: number;
  /** `none`: post-copy was asked for, and memory has a head start. */
  readonly rounds: 'none' | 'one' | 'many';
  readonly onStall: StallAction;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
}

export type Overdue =
  | { readonly action: 'judge-rounds' }
  /** `go-on`: to the end of the round, where the guest stops. */
  | { readonly action: 'go-on' | 'start-postcopy' | 'abort'; readonly why: string };

/** A link that carries anything brings something within this. */
const STANDS_MS = 1000;

export function overdue(late: Lateness): Overdue {
  const { elapsedMs, stoodMs, remainingBytes, rounds, onStall, postcopyObstacle } = late;
  const over = `The deadline is over after ${duration(elapsedMs)}`;
  if (stoodMs >= STANDS_MS) {
    const why = `${over}, and the destination has taken nothing for ${duration(stoodMs)}.`;
    return { action: 'abort', why };
  }
  if (rounds === 'many') return { action: 'judge-rounds' };
  if (rounds === 'none') return { action: 'start-postcopy', why: `${over}: the guest moves now.` };
  const left = `${over}, and ${size(remainingBytes)} of the only round are left`;
  switch (onStall) {
    case 'postcopy':
      return postcopyObstacle === undefined
        ? { action: 'start-postcopy', why: `${left}. They follow by post-copy.` }
        : { action: 'abort', why: `${left}. Post-copy is not possible: ${postcopyObstacle}.` };
    case 'stop':
      return { action: 'go-on', why: `${left}. The operator allows a longer downtime.` };
    case 'throttle':
      return { action: 'abort', why: `${left}. There is no time left for throttling.` };
    case 'abort':
      return { action: 'abort', why: `${left}.` };
  }
}
