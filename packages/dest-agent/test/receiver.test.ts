import { encodePageList, maxPageListBytes } from '@vmferry/engine/carriage/page-payload';
import type { DestGuest, DestItem, PageBatch } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { pack } from '@vmferry/native/kernels';
import { Codec, type Frame, FrameKind, HEADER_BYTES, hashPayload } from '@vmferry/wire/frame';
import type { Link } from '@vmferry/wire/link';
import { expect, it, vi } from 'vitest';
import { FaultTimes } from '../src/fault-times.ts';
import { Receiver } from '../src/receiver.ts';

const BATCH_PAGES = 256;

const BLOCK_PAGES = 100_000;

/** A guest that takes what it is given when the test says so. */
class HeldGuest {
  readonly given: { batch: PageBatch; content: Buffer; take: () => void }[] = [];

  apply(item: DestItem): Promise<void> {
    if (item.type !== 'pages') return Promise.resolve();
    return new Promise((resolve) => {
      const take = () => {
        item.release();
        resolve();
      };
      this.given.push({ batch: item, content: Buffer.from(item.content), take });
    });
  }
}

function rig(bufferBytes = 64 * 1024 * 1024) {
  const guest = new HeldGuest();
  const consumed: number[] = [];
  const failures: unknown[] = [];
  const receiver = new Receiver({
    guest: guest as Partial<DestGuest> as DestGuest,
    dataStreams: 1,
    bufferBytes,
    faults: new FaultTimes(),
    onFailure: (error) => failures.push(error),
  });
  const link = { consumed: ({ sequence }: Frame) => consumed.push(sequence) } as Partial<Link> as Link;
  receiver.announce({ epoch: 1, upTo: [0, 0] });
  receiver.layout({
    blocks: [{ name: 'pc.ram', bytes: bytes(BLOCK_PAGES * PAGE_BYTES), hostPageBytes: bytes(PAGE_BYTES) }],
  });
  return { guest, consumed, failures, receiver, link };
}

async function frameOf(
  sequence: number,
  { count = BATCH_PAGES, kind = PageKind.raw as number, codec = Codec.none as Codec } = {},
): Promise<Frame> {
  const pages = Uint32Array.from({ length: count }, (_, i) => sequence * 1000 + i);
  const kinds = new Uint8Array(count).fill(kind);
  const contentBytes = kind === PageKind.raw ? count * PAGE_BYTES : 0;
  const raw = new Uint8Array(maxPageListBytes(count) + contentBytes);
  const at = encodePageList({ pages, kinds }, raw, 0);
  raw.fill(sequence, at);
  let payload = raw.subarray(0, at + contentBytes);
  const rawBytes = payload.length;
  if (codec === Codec.lz4) {
    const target = new Uint8Array(rawBytes);
    payload = target.subarray(0, (await pack(payload, target, { codec: 'lz4' })).bytes);
  }
  return {
    kind: FrameKind.pages,
    flags: 0,
    codec,
    sequence,
    acknowledgement: 0,
    epoch: 1,
    round: 1,
    block: 0,
    count,
    rawBytes,
    payloadBytes: payload.length,
    payloadHash: hashPayload(payload),
    payload,
    frameBytes: HEADER_BYTES + payload.length,
  };
}

it('gives the guest every batch in order, a few at a time, and consumes a frame when the guest has it', async () => {
  const { guest, consumed, failures, receiver, link } = rig();
  const codecs = [Codec.none, Codec.lz4];
  for (let i = 1; i <= 12; i += 1) receiver.pages(await frameOf(i, { codec: codecs[i % 2]! }), link, 0);
  for (let i = 1; i <= 12; i += 1) {
    await vi.waitFor(() => expect(guest.given.length).toBe(Math.min(12, i + 3)));
    const { batch, content, take } = guest.given[i - 1]!;
    expect(batch.pages[0]).toBe(i * 1000);
    expect(batch.kinds).toEqual(new Uint8Array(BATCH_PAGES).fill(PageKind.raw));
    // Nothing was written over what the guest still holds.
    expect(Buffer.compare(batch.content, content)).toBe(0);
    expect(content.equals(Buffer.alloc(BATCH_PAGES * PAGE_BYTES, i))).toBe(true);
    expect(consumed).toHaveLength(i - 1);
    take();
  }
  await vi.waitFor(() => expect(consumed).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
  expect(receiver.pagesApplied).toBe(12 * BATCH_PAGES);
  expect(failures).toEqual([]);
});

it('goes on with the least memory that it may be given', async () => {
  const { guest, consumed, receiver, link } = rig(1);
  for (let i = 1; i <= 5; i += 1) receiver.pages(await frameOf(i, { codec: Codec.lz4 }), link, 0);
  for (let i = 1; i <= 5; i += 1) {
    await vi.waitFor(() => expect(guest.given.length).toBe(Math.min(5, i + 1)));
    guest.given[i - 1]!.take();
  }
  await vi.waitFor(() => expect(consumed).toHaveLength(5));
});

it('passes an answer to a fault by the batches that wait for the guest', async () => {
  const { guest, receiver, link } = rig();
  for (let i = 1; i <= 6; i += 1) receiver.pages(await frameOf(i), link, 0);
  await vi.waitFor(() => expect(guest.given.length).toBe(4));
  receiver.pages(await frameOf(9, { count: 1 }), link, 1);
  await vi.waitFor(() => expect(guest.given.length).toBe(5));
  expect(guest.given[4]!.batch).toMatchObject({ lane: 'express', pages: Uint32Array.of(9000) });
});

it('takes zero pages without any content', async () => {
  const { guest, receiver, link } = rig();
  receiver.pages(await frameOf(1, { count: 2048, kind: PageKind.zero }), link, 0);
  await vi.waitFor(() => expect(guest.given.length).toBe(1));
  expect(guest.given[0]!.batch.pages).toHaveLength(2048);
  expect(guest.given[0]!.batch.content).toHaveLength(0);
});

it.each([
  ['a big payload that was changed', Codec.none, BATCH_PAGES, /checksum/],
  ['a small payload that was changed', Codec.none, 2, /hash/],
  ['a packed payload that was changed', Codec.lz4, BATCH_PAGES, /checksum/],
])('gives the guest nothing of %s', async (_, codec, count, message) => {
  const { guest, failures, receiver, link } = rig();
  const frame = await frameOf(1, { codec, count });
  frame.payload[frame.payload.length - 1]! ^= 1;
  receiver.pages(frame, link, 0);
  await vi.waitFor(() => expect(failures).toHaveLength(1));
  expect(String(failures[0])).toMatch(message);
  expect(guest.given).toEqual([]);
});

it.each([
  ['another number of pages', { count: 3 }, /more than 3 pages|another number/],
  ['fewer pages', { count: 400 }, /another number/],
  ['another size', { rawBytes: 17 }, /another size/],
  ['a block that is not there', { block: 1 }, /names block 1/],
  ['a size beyond every limit', { codec: Codec.lz4, rawBytes: 2 ** 31 }, /is the limit/],
])('gives the guest nothing of a frame that says %s', async (_, wrong, message) => {
  const { guest, failures, receiver, link } = rig();
  receiver.pages({ ...(await frameOf(1)), ...wrong }, link, 0);
  await vi.waitFor(() => expect(failures).toHaveLength(1));
  expect(String(failures[0])).toMatch(message);
  expect(guest.given).toEqual([]);
});
