/**
 * QEMU 10.2 and newer in post-copy, until it has noticed that the destination has loaded the state: if its stream breaks
 * before, it runs the guest again by itself.
 *
 *     postcopy-device ── heard that it is loaded, and between two spells of writing ──▶ postcopy-active
 *                    └── the stream breaks ──▶ failed: the guest runs here
 */
import type { OutgoingStream } from './outgoing-stream.ts';

export const RUNS_AGAIN = 'postcopy-device';
/** It has noticed, or does not need to. */
export const LET_GO: readonly string[] = ['postcopy-active', 'completed'];
export const LET_GO_TIMEOUT_MS = 30_000;

/**
 * Takes what it writes until it can run the guest no longer by itself: it notices nothing otherwise.
 *
 * @param other the first status from now on that is another one than `postcopy-device`
 * @returns that status: one of `LET_GO`, or how the migration has ended
 */
export async function untilLetGo(
  stream: Pick<OutgoingStream, 'keepTaking'>,
  other: () => Promise<string>,
): Promise<string> {
  const enough = stream.keepTaking();
  try {
    return await other();
  } finally {
    enough();
  }
}
