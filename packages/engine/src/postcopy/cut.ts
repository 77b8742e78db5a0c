/** Parts of a page batch, without a copy: they share its memory, which is given back by the last of them. */
import { type PageBatch, PageKind } from '../guest.ts';
import { bytes, PAGE_BYTES } from '../units.ts';

export interface CutBatch {
  readonly before: PageBatch | undefined;
  readonly middle: PageBatch | undefined;
  readonly after: PageBatch | undefined;
}

/** Takes the batch over; `middle` has the pages from index `from` up to but without `to`. */
export function cutBatch(batch: PageBatch, from: number, to: number): CutBatch {
  const count = batch.pages.length;
  const bounds = [0, from, to, count] as const;
  let holders = bounds.slice(1).filter((end, index) => end > bounds[index]!).length;
  const release = (): void => {
    holders -= 1;
    if (holders === 0) batch.release();
  };
  let contentAt = 0;
  const part = (start: number, end: number): PageBatch | undefined => {
    if (end <= start) return undefined;
    const kinds = batch.kinds.subarray(start, end);
    let raw = 0;
    for (const kind of kinds) if (kind === PageKind.raw) raw += 1;
    const content = batch.content.subarray(contentAt, contentAt + raw * PAGE_BYTES);
    const headroomBytes = contentAt === 0 ? batch.headroomBytes : bytes(0);
    contentAt += raw * PAGE_BYTES;
    return { ...batch, pages: batch.pages.subarray(start, end), kinds, content, headroomBytes, release };
  };
  return { before: part(0, from), middle: part(from, to), after: part(to, count) };
}
