/** How big the page batches are that the source cuts, and with them the memory that holds one on its way. */
import { PAGE_BYTES } from '../units.ts';
import { maxPageListBytes } from './page-payload.ts';

/** Pages of one batch, except where a single huge page is more. */
export const BATCH_PAGES = 256;

/** The payload of such a batch at its longest: list and content. */
export const BATCH_PAYLOAD_BYTES = maxPageListBytes(BATCH_PAGES) + BATCH_PAGES * PAGE_BYTES;
