/**
 * libvirt runs the guest on the destination before the source has heard that it can: should that word be lost, the source
 * runs it again. So where there is no post-copy it is finished paused, and run when the source has let go of it.
 */
export function finishesPaused({ postcopy }: { readonly postcopy: boolean }): boolean {
  return !postcopy;
}
