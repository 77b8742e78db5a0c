import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BATCH_PAYLOAD_BYTES, payloadBytes, precopyBatch } from '../../src/carriage/batch-limits.ts';

describe('the limits of batches', () => {
  it('fit the largest frame that a peer takes, and hold what there is room for', () => {
    expect(payloadBytes(precopyBatch(2 ** 30))).toBe(BATCH_PAYLOAD_BYTES);
    fc.assert(
      fc.property(fc.integer({ min: 8192, max: 8 * 2 ** 20 }), (maxFrameBytes) => {
        const limits = precopyBatch(maxFrameBytes);
        expect(limits.pages).toBeGreaterThanOrEqual(limits.rawPages);
        const frame = 64 + payloadBytes(limits);
        expect(frame).toBeLessThanOrEqual(maxFrameBytes);
        const largest = payloadBytes(limits) === BATCH_PAYLOAD_BYTES;
        if (!largest) expect(frame * 2.1).toBeGreaterThan(maxFrameBytes);
      }),
    );
  });
});
