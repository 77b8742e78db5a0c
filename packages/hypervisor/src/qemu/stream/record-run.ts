/** Runs of page records, read by a kernel: the fast way of `PageReader.readRun`, which is its model. */
import { Cursor, newCursor, readRecords } from '@vmferry/native/ram-records';
import type { BatchBuilder } from './batch-builder.ts';

export class RecordRun {
  readonly #cursor = newCursor();

  /** Moves records from `chunk` to the batch as far as both reach, and returns where the next record begins. */
  read(chunk: Uint8Array, from: number, blockPages: number, batch: BatchBuilder): number {
    const cursor = this.#cursor;
    cursor[Cursor.position] = from;
    cursor[Cursor.end] = chunk.length;
    cursor[Cursor.blockPages] = blockPages;
    cursor[Cursor.count] = batch.count;
    cursor[Cursor.maxPages] = batch.maxPages;
    cursor[Cursor.contentEnd] = batch.contentEnd;
    cursor[Cursor.maxContent] = batch.roomForContent;
    readRecords(cursor, chunk, batch.pages, batch.kinds, batch.content);
    batch.filled(cursor[Cursor.count]!, cursor[Cursor.contentEnd]!);
    return cursor[Cursor.position]!;
  }
}
