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
  /** From the decision to the guest's standing still. */
  readonly stopMs: number;
  /**
   * What waits for the link when the guest stops, in bytes of pages: three batches, which the agent packs ahead.
   * And what is on its way at most, in bytes on the wire.
   */
  readonly bufferedBytes: number;
  readonly inFlightBytes: number;
  readonly deviceStateBytes: number;
  readonly loadStateMs: number;
  /** Journals of both hosts, besides the network's round trips. */
  readonly commitMs: number;
  readonly resumeMs: number;
  /** A fault's way through both hosts, without the network. */
  readonly faultMs: number;
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
  bufferedBytes: 6 * 1024 * 1024,
  inFlightBytes: 2 * 1024 * 1024,
  deviceStateBytes: 400_000,
  loadStateMs: 20,
  commitMs: 4,
  resumeMs: 8,
  faultMs: 0.45,
  completeMs: 20,
};
