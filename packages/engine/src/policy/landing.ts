/**
 * Where the guest is about to stop, what was read of its memory stands before its state: it is let arrive first, while
 * the guest still runs, and nothing more is read until the hypervisor has heard of it. What whoever carries that out
 * has to know; times in milliseconds.
 */
import type { BytesPerSec } from '../units.ts';

/** What was read is waited for no longer than this. */
export const LANDING_MS = 200;
/**
 * In pre-copy what the guest writes meanwhile is sent while it stands still, so that has to be less than what arrives.
 * By half, because a dirty rate is an average over a round, and different pages are written faster at its begin.
 */
const WORTH_WRITING = 1 / 2;

/** Whether a stop in pre-copy gets shorter by it. 0 stands for a bandwidth that is not known. */
export function landingPays(dirtyBytesPerSec: BytesPerSec, bandwidthBytesPerSec: BytesPerSec): boolean {
  return bandwidthBytesPerSec > 0 && dirtyBytesPerSec <= bandwidthBytesPerSec * WORTH_WRITING;
}

/** And the hypervisor's answer, before it is read on from, no longer than this. */
export const HEARD_MS = 30;
