/** Whether a source has its guest again when a post-copy fails before the guest has run on the destination. Both sides go by it. */

/**
 * - `undone`: QEMU before 10.0 can be told to cancel it (`source/undo-postcopy`).
 * - `never`: QEMU 10.0 and 10.1 refuse to.
 * - `by-itself`: QEMU from 10.2 on runs it again, until it has noticed that it is loaded.
 */
export type ComesBack = 'undone' | 'never' | 'by-itself';

/** @param version of the source's hypervisor, as a guest's description has it: "QEMU 7.2.22" */
export function comesBack(version: string): ComesBack {
  const [, major, minor] = (/^QEMU (\d+)\.(\d+)/.exec(version) ?? []).map(Number);
  if (major === undefined || minor === undefined || major > 10) return 'by-itself';
  if (major < 10) return 'undone';
  return minor < 2 ? 'never' : 'by-itself';
}
