import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BATCH_PAYLOAD_BYTES,
  expressPages,
  hostPageFits,
  pacedBatch,
  payloadBytes,
  precopyBatch,
} from '../../src/carriage/batch-limits.ts';

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

  it('let answers to faults fit the largest frame that a peer takes', () => {
    expect(expressPages(4 * 2 ** 20)).toBe(256);
    expect(expressPages(2 ** 20)).toBe(128);
    fc.assert(
      fc.property(fc.integer({ min: 8192, max: 8 * 2 ** 20 }), (maxFrameBytes) => {
        const count = expressPages(maxFrameBytes);
        expect(64 + payloadBytes({ rawPages: count, pages: count })).toBeLessThanOrEqual(maxFrameBytes);
      }),
    );
  });

  it('know which host pages no frame takes whole', () => {
    expect(hostPageFits(4096, 2 ** 20)).toBe(true);
    expect(hostPageFits(2 * 2 ** 20, 2 * 2 ** 20)).toBe(false);
    expect(hostPageFits(2 * 2 ** 20, 2 * 2 ** 20 + 8 * 1024)).toBe(true);
  });

  it('are 10 ms of what gets away, between 64 KiB and the most there may be', () => {
    const most = precopyBatch(2 ** 30);
    expect(pacedBatch(most, 40_960_000)).toEqual({ rawPages: 100, pages: most.pages });
    expect(pacedBatch(most, 1_000_000).rawPages).toBe(16);
    expect(pacedBatch(most, 10_000_000_000)).toEqual(most);
    expect(pacedBatch(most, undefined).rawPages).toBe(128);
    expect(pacedBatch({ rawPages: 8, pages: 64 }, undefined)).toEqual({ rawPages: 8, pages: 64 });
  });
});
