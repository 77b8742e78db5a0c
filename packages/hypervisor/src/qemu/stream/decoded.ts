/** What the stream decoder makes of QEMU's stream. */
import type { PageBatch, RamLayout } from '@vmferry/engine/guest';
import type { Bytes } from '@vmferry/engine/units';
import type { CommandNotice } from './command.ts';

export type DecodedItem =
  /** Bytes to be replayed. Those of device state and of verbatim streams are views into the pushed chunk. */
  | { readonly type: 'opaque'; readonly bytes: Uint8Array }
  /** Comes once, after the bytes it was read from. */
  | { readonly type: 'ram-layout'; readonly layout: RamLayout; readonly sectionId: number }
  | PageBatch
  /** From here on all is opaque. */
  | { readonly type: 'verbatim'; readonly why: string }
  /** Post-copy: the device state is out. */
  | { readonly type: 'state-complete'; readonly pagesFollow: true }
  /** All pages are out. The bytes that tell the destination so follow as opaque ones. */
  | { readonly type: 'ram-end' }
  /** Comes before the command's own bytes. */
  | CommandNotice;

/**
 * How the input ended. `whole`: at the stream's own end. `opaque`: within bytes of unknown length, so only
 * the two hypervisors know. `truncated`: anywhere else.
 */
export type StreamEnd =
  | { readonly state: 'whole' | 'opaque' }
  | { readonly state: 'truncated'; readonly where: string };

export interface StreamCounts {
  readonly bytes: Bytes;
  readonly opaqueBytes: Bytes;
  readonly rawPages: number;
  readonly zeroPages: number;
}
