/** The guest's stream on its way: items from the hypervisor, in order, to the carrier. */
import type { PageBatch, SourceGuest, SourceItem } from '@vmferry/engine/guest';
import type { Carrier } from './carrier.ts';
import type { PostcopySender } from './postcopy-sender.ts';

export interface TransferOptions {
  readonly guest: SourceGuest;
  readonly carrier: Carrier;
  readonly postcopy: PostcopySender;
  readonly onPages: (batch: PageBatch) => void;
  /** So many pages were read before post-copy. Resolves when more may be. */
  readonly mayGoOn: (pages: number) => Promise<void>;
  /** Items that are not only carried: the caller takes note of them. */
  readonly onMilestone: (
    item: Exclude<SourceItem, PageBatch | { type: 'opaque' }> | { type: 'opaque' },
  ) => void;
}

/** Resolves at the stream's end. Rejects with what broke first, the guest's stream or the link. */
export async function transfer(items: AsyncIterable<SourceItem>, options: TransferOptions): Promise<void> {
  const { carrier, postcopy, onMilestone } = options;
  let inPostcopy = false;
  for await (const item of items) {
    switch (item.type) {
      case 'pages':
        options.onPages(item);
        if (inPostcopy) await postcopy.add(item);
        else {
          const count = item.pages.length;
          await carrier.bulk(item);
          await options.mayGoOn(count);
        }
        break;
      case 'opaque':
        if (inPostcopy) await postcopy.flush();
        onMilestone({ type: 'opaque' });
        await carrier.opaque(item.bytes);
        break;
      case 'ram-layout':
        await carrier.layout(item.layout);
        onMilestone(item);
        break;
      case 'state-complete':
        await carrier.stateComplete(item.pagesFollow);
        inPostcopy = item.pagesFollow;
        onMilestone(item);
        break;
      case 'end':
        if (inPostcopy) await postcopy.flush();
        await carrier.end();
        onMilestone(item);
        break;
      case 'round-end':
        onMilestone(item);
        // The next round is not to begin where its end is to land first.
        await options.mayGoOn(0);
        break;
      default:
        onMilestone(item);
    }
  }
}
