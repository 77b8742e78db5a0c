/**
 * Where post-copy begins, what was read of the guest's memory stands before its state: it is let arrive first, while
 * the guest still runs, and nothing more is read until the hypervisor has heard of it. Constants of whoever carries
 * that out, in milliseconds.
 */

/** What was read is waited for no longer than this. */
export const LANDING_MS = 200;
/** And the hypervisor's answer, before it is read on from, no longer than this. */
export const HEARD_MS = 30;
