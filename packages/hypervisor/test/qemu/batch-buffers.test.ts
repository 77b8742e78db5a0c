import { headroomFor, POSTCOPY_BATCH, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { BatchBuffers } from '../../src/qemu/batch-buffers.ts';

const MiB = 2 ** 20;
const precopy = precopyBatch(64 * MiB);

function buffers(): BatchBuffers {
  return new BatchBuffers({ batches: { precopy, postcopy: POSTCOPY_BATCH }, bufferBytes: bytes(64 * MiB) });
}

describe('the buffers of batches', () => {
  it('have room for the content and, before it, for the list of all pages', () => {
    for (const { rawPages, pages } of [precopy, POSTCOPY_BATCH, { rawPages: 4096, pages: 4096 }]) {
      const { content, headroomBytes } = buffers().allocate(rawPages * PAGE_BYTES);
      expect(content.length).toBeGreaterThanOrEqual(rawPages * PAGE_BYTES);
      expect(content.byteOffset).toBeGreaterThanOrEqual(headroomBytes!);
      expect(headroomBytes).toBeGreaterThanOrEqual(headroomFor(pages));
    }
  });

  it('are used again, and small batches hold small ones', () => {
    const pool = buffers();
    const sizes = [precopy, POSTCOPY_BATCH].map(({ rawPages }) => rawPages * PAGE_BYTES);
    const memory = sizes.map((size) => {
      const lent = pool.allocate(size);
      lent.release();
      expect(() => lent.release()).toThrow(/twice/);
      return lent.content.buffer;
    });
    expect(sizes.map((size) => pool.allocate(size).content.buffer)).toEqual(memory);
    expect(memory[1]!.byteLength).toBeLessThan(memory[0]!.byteLength / 4);
  });
});
