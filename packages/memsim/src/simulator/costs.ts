/** What hosts take for their part of a migration. */

export interface Costs {
  /** Connecting, describing, preparing the destination, in milliseconds, besides the network's round trips. */
  readonly setupMs: number;
  /** Looking at a page on the source, whatever it holds, in microseconds. */
  readonly scanPageUs: number;
  /** Handling a page with content on the source, and on the destination. */
  readonly sendPageUs: number;
  readonly takePageUs: number;
  /** Cores that pack pages. */
  readonly packCores: number;
  /** Reading the dirty log once: in all, and for each GiB of memory, in milliseconds. */
  readonly roundMs: number;
  readonly roundMsPerGiB: number;
  /** What stopping the guest takes, in which it writes nothing any more. */
  readonly stopMs: number;
  /**
   * What waits for the link when the guest stops: batches that are read and packed ahead, for so long, which are at
   * most so many bytes of pages. And what is on its way, the same in bytes on the wire. See `pipeline.ts`.
   */
  readonly bufferedMs: number;
  readonly bufferedBytes: number;
  readonly inFlightMs: number;
  readonly inFlightBytes: number;
  readonly deviceStateBytes: number;
  readonly loadStateMs: number;
  /** The same, what post-copy takes besides: pages to be dropped, the handler of faults. */
  readonly postcopyStateMs: number;
  /**
   * And for each GiB that is missing. Of a QEMU the state of 9 GiB of which nearly nothing was touched took no longer
   * than that of 0.7 GiB: what grows with size is less than was to be seen.
   */
  readonly missingMsPerGiB: number;
  /** For each range of pages that was sent and is missing again: the hypervisor tells them one by one. */
  readonly discardUs: number;
  /**
   * What a hypervisor has written of its memory, and nobody read, when it hears of post-copy: its socket's buffer, and
   * half of the 64 pages that a QEMU writes between two looks.
   */
  readonly heldBytes: number;
  /** Batches of it that its driver had read ahead of the agent by then. */
  readonly heldBatches: number;
  /**
   * Where post-copy comes before any round: a hypervisor that has begun a round goes on with it for so long before it
   * hands over, and so much (on the wire) stands before the state by then, if the link is slow.
   */
  readonly leadMs: number;
  readonly leadBytes: number;
  /** Journals of both hosts, besides the network's round trips. */
  readonly commitMs: number;
  readonly resumeMs: number;
  /** What these two take more in post-copy. */
  readonly postcopyResumeMs: number;
  /** A fault's way through both hosts, without the network. */
  readonly faultMs: number;
  /**
   * What each batch of the background takes them in post-copy besides its pages. Of both agents 0.05 to 0.25 ms of one
   * core were measured with pages that do not pack, and 0.04 ms with pages of zeroes.
   */
  readonly batchMs: number;
  /**
   * A batch's way through both hosts while the source learns what the path carries from batches of which each waits
   * for the one before.
   */
  readonly pathTripMs: number;
  /** From the guest's running to the end, besides what is still sent. */
  readonly completeMs: number;
}

/** vmferry on hosts of today with KVM. */
export const DEFAULT_COSTS: Costs = {
  setupMs: 120,
  scanPageUs: 0.3,
  sendPageUs: 2.5,
  takePageUs: 2.5,
  packCores: 4,
  roundMs: 2,
  roundMsPerGiB: 0.3,
  stopMs: 5,
  bufferedMs: 60,
  bufferedBytes: 6 * 1024 * 1024,
  inFlightMs: 20,
  inFlightBytes: 2 * 1024 * 1024,
  deviceStateBytes: 400_000,
  loadStateMs: 20,
  postcopyStateMs: 10,
  missingMsPerGiB: 0.5,
  discardUs: 0,
  heldBytes: 344_064,
  heldBatches: 2,
  leadMs: 50,
  leadBytes: 2 * 1024 * 1024,
  commitMs: 4,
  resumeMs: 8,
  postcopyResumeMs: 5,
  faultMs: 0.45,
  batchMs: 0.1,
  pathTripMs: 0,
  completeMs: 20,
};
