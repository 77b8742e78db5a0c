/**
 * What goes before the guest in post-copy. Pure.
 *
 * The first moments on the destination are nothing but faults, most of them on pages that the guest only reads: its
 * kernel's code and tables. Hypervisors send memory in the order of addresses, and a guest's kernel lies low: of the
 * faults in the first second of a Linux guest of 512 MiB all were below 117 MiB, and a fifth on pages that had lately
 * been written. So what a short while brings is a good part of what the guest would stand still for, while the guest
 * still runs on the source; and it is no more work, for all of it has to be sent anyway, except for what is written
 * again meanwhile.
 */
import { PAGE_BYTES } from '../units.ts';
import { duration, size } from './words.ts';

/** In which the quarter below has gone at 1 Gbit/s: with 400 ms a guest of 512 MiB got 60 MiB, and faulted just above them. */
const USUAL_MS = 1000;
/** Of memory: the guest is to move first, and most of its memory afterwards. */
const MOST_SHARE = 1 / 4;
/**
 * Smaller guests have none: they are soon there as they are, and the hypervisor, which is ahead of its reader by what
 * a socket holds (23 000 pages of zeroes), must not come to the end of its round.
 */
const LEAST_MEMORY_BYTES = 256 * 1024 * 1024;

export interface HeadStart {
  readonly ms: number;
  /** Whatever comes first. */
  readonly pages: number;
}

/** Undefined: the guest moves before any of its memory. */
export function headStartOf(
  { headStartMs = USUAL_MS }: { readonly headStartMs?: number | undefined },
  memoryBytes: number,
): HeadStart | undefined {
  if (headStartMs === 0 || memoryBytes < LEAST_MEMORY_BYTES) return undefined;
  return { ms: headStartMs, pages: Math.floor((memoryBytes * MOST_SHARE) / PAGE_BYTES) };
}

/** In words, for whoever asks why the guest moved when it did. */
export function afterHeadStart({ ms, pages }: HeadStart): string {
  return `Post-copy was asked for: what the guest needs first has gone ahead (for ${duration(ms)} or up to ${size(pages * PAGE_BYTES)}); now the guest moves, and the rest of its memory follows.`;
}
