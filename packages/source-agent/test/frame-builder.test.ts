import { decodePageList } from '@vmferry/engine/carriage/page-payload';
import { type PackCodec, unpack } from '@vmferry/native/kernels';
import { FrameFlag, HEADER_BYTES, hashPayload, type OutgoingFrame } from '@vmferry/wire/frame';
import { describe, expect, test } from 'vitest';
import { buildFrameAtOnce, buildPackedFrame, buildPlainFrame, isSmall } from '../src/frame-builder.ts';
import { FrameRoom } from '../src/frame-room.ts';
import { batchOf, type TestBatch } from './batches.ts';

const MiB = 2 ** 20;

interface BulkRequest {
  readonly batch: TestBatch;
  readonly epoch: number;
  readonly codec: 'none' | 'lz4' | 'lz4hc';
  readonly room: FrameRoom;
  readonly onRelease: () => void;
}

function buildBulkFrame({ codec, ...request }: BulkRequest): Promise<OutgoingFrame> {
  return codec === 'none' ? buildPlainFrame(request) : buildPackedFrame({ ...request, lane: 'bulk', codec });
}

/** What the destination makes of the frame. */
async function opened(frame: OutgoingFrame) {
  const packed = frame.buffer.subarray(HEADER_BYTES);
  expect(hashPayload(packed)).toEqual(frame.payloadHash);
  const payload = Buffer.alloc(frame.rawBytes);
  await unpack(packed, payload, {
    codec: frame.codec === 1 ? 'lz4' : 'none',
    rawBytes: frame.rawBytes,
    ...frame.payloadHash,
  });
  const list = decodePageList(payload, { blockPages: 2 ** 20 });
  return { ...list, content: payload.subarray(list.contentOffset) };
}

async function expectSame(frame: OutgoingFrame, batch: TestBatch, content: Buffer): Promise<void> {
  const found = await opened(frame);
  expect(frame.count).toBe(batch.pages.length);
  expect(found.pages).toEqual(batch.pages);
  expect(found.kinds).toEqual(batch.kinds);
  expect(Buffer.compare(found.content, content)).toBe(0);
}

describe('a bulk frame', () => {
  const cases: [PackCodec, boolean][] = [
    ['none', true],
    ['none', false],
    ['lz4', true],
    ['lz4', false],
    ['lz4hc', true],
  ];
  test.each(cases)('(%s, room before the content: %s) holds what the batch held', async (codec, headroom) => {
    const room = new FrameRoom(64 * MiB);
    const batch = batchOf(40, 100, { headroom });
    batch.content.fill(7, 0, 20 * 4096);
    const content = Buffer.from(batch.content);
    let released = 0;
    const frame = await buildBulkFrame({ batch, epoch: 3, codec, room, onRelease: () => (released += 1) });
    await expectSame(frame, batch, content);
    expect(frame).toMatchObject({ epoch: 3, round: 1, block: 0, flags: 0, codec: codec === 'none' ? 0 : 1 });
    // What the frame does not lie in is free as soon as it is built.
    const inPlace = codec === 'none';
    expect(batch.released()).toBe(inPlace ? 0 : 1);
    expect(inPlace && headroom ? frame.buffer.buffer === batch.content.buffer : true).toBe(true);
    expect([released, room.held > 0]).toEqual([0, true]);
    frame.release?.();
    expect([batch.released(), released, room.held]).toEqual([1, 1, 0]);
  });

  test('that finds no room any more gives everything back', async () => {
    for (const codec of ['none', 'lz4'] as const) {
      const room = new FrameRoom(0);
      room.close();
      const batch = batchOf(40, 0);
      let released = 0;
      const building = buildBulkFrame({ batch, epoch: 0, codec, room, onRelease: () => (released += 1) });
      await expect(building).rejects.toThrow(/closed/);
      expect([batch.released(), released, room.held]).toEqual([1, 1, 0]);
    }
  });
});

describe('a frame built at once', () => {
  test.each([
    [0, 1],
    [0, 4096],
    [1, 0],
    [64, 64],
  ])(
    'of %i raw pages and %i of zeroes holds what the batch held, in memory of its own',
    async (raw, zero) => {
      const batch = batchOf(raw, zero);
      const content = Buffer.from(batch.content);
      let released = 0;
      const frame = buildFrameAtOnce(batch, 'express', 1, () => (released += 1));
      expect(batch.released()).toBe(1);
      batch.content.fill(0xee);
      await expectSame(frame, batch, content);
      expect(frame.flags).toBe(FrameFlag.express);
      expect(released).toBe(0);
      frame.release?.();
      expect([batch.released(), released]).toEqual([1, 1]);
    },
  );

  test('is for little content', () => {
    expect([batchOf(0, 4096), batchOf(3, 0), batchOf(4, 0), batchOf(512, 0)].map(isSmall)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
