import type { RunState } from '@vmferry/engine/guest';

/** What an operator should know of a guest that arrives otherwise than it was found; undefined where it does not. */
export function runStateRemark(ranBefore: boolean, { running, word }: RunState): string | undefined {
  if (ranBefore === running) return undefined;
  return running
    ? 'The guest was paused when its migration began, and was let run before its end: it runs on the destination.'
    : `The guest was stopped while it was moved, and not by its migration (the source's hypervisor says "${word}"): it arrives as it was, and does not run before it is told to (QEMU: cont).`;
}
