/** Where the guests of staged agents tell that they have got to, and can be held. */

/**
 * `rpc`: libvirt connects to the agent; `ram`: a halted guest's memory is about to be connected. `commit`: it is on disk, and nobody was told;
 * `committed`: libvirt was. The process stands still at these two until it is killed.
 */
export type SourceStep =
  | 'rpc'
  | 'ram'
  | 'stopped'
  | 'state-complete'
  | 'start-postcopy'
  | 'commit'
  | 'committed'
  | 'forget';

/**
 * Before and after the guest was made ready for the stream, was loaded, was let run, and had all its pages. `ram-there`: a
 * halted guest's QEMU is about to be connected to.
 */
export type DestStep =
  | 'ram-there'
  | 'open'
  | 'open-done'
  | 'ready'
  | 'ready-done'
  | 'run'
  | 'run-done'
  | 'complete'
  | 'complete-done';

export type Step = SourceStep | DestStep;
