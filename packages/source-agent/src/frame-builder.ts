/**
 * A page batch becomes a frame.
 *
 *     little content ─▶ copied into memory of its own, at once
 *     codec none     ─▶ header and list are put before the content where it lies; a worker hashes
 *     else           ─▶ list and content in one piece ─▶ packed by a worker into memory of the frames'
 *
 * So the event loop copies no content that is worth a worker's round trip.
 */
import { precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { encodePageList, maxPageListBytes } from '@vmferry/engine/carriage/page-payload';
import type { Lane, PageBatch } from '@vmferry/engine/guest';
import { checksumAsync, type PackCodec, pack } from '@vmferry/native/kernels';
import {
  Codec,
  FrameFlag,
  FrameKind,
  type Hash,
  HEADER_BYTES,
  hashPayload,
  type OutgoingFrame,
} from '@vmferry/wire/frame';
import type { FrameRoom } from './frame-room.ts';

/** Small payloads are not worth a worker's round trip. */
const INLINE_BYTES = 16 * 1024;

/** Where lists are written before it is known how long they get. Never in use across an `await`. */
const scratch = new Uint8Array(maxPageListBytes(precopyBatch(Number.POSITIVE_INFINITY).pages));

/** The batch's list; good until the next one is made. */
function listOf(batch: PageBatch): Uint8Array {
  const most = maxPageListBytes(batch.pages.length);
  const target = most <= scratch.length ? scratch : new Uint8Array(most);
  return target.subarray(0, encodePageList(batch, target, 0));
}

/** Memory that the frame of this batch needs at most. */
function frameBytes(batch: PageBatch): number {
  return HEADER_BYTES + maxPageListBytes(batch.pages.length) + batch.content.length;
}

/** Is the frame best built at once, by `buildFrameAtOnce`? */
export function isSmall({ content }: PageBatch): boolean {
  return content.length < INLINE_BYTES;
}

/** The batch's own memory with room for a header and the list, the list in its place; undefined without room. */
function inPlace({ content, headroomBytes }: PageBatch, list: Uint8Array): Uint8Array | undefined {
  const before = HEADER_BYTES + list.length;
  if (headroomBytes < before) return undefined;
  const whole = new Uint8Array(content.buffer, content.byteOffset - before, before + content.length);
  whole.set(list, HEADER_BYTES);
  return whole;
}

/** The same as a copy, for batches without room. */
function joined({ content }: PageBatch, list: Uint8Array): Uint8Array {
  const whole = Buffer.allocUnsafeSlow(HEADER_BYTES + list.length + content.length);
  whole.set(list, HEADER_BYTES);
  whole.set(content, HEADER_BYTES + list.length);
  return whole;
}

interface Packed {
  readonly codec: Codec;
  readonly rawBytes: number;
  readonly payloadHash: Hash;
  /** Header and payload. */
  readonly buffer: Uint8Array;
}

function frameOf(
  { block, round, pages }: PageBatch,
  lane: Lane,
  epoch: number,
  { codec, rawBytes, payloadHash, buffer }: Packed,
  release: () => void,
): OutgoingFrame {
  return {
    kind: FrameKind.pages,
    flags: lane === 'express' ? FrameFlag.express : 0,
    codec,
    epoch,
    round,
    block,
    count: pages.length,
    rawBytes,
    payloadHash,
    buffer,
    release,
  };
}

/** Built at once, in memory of its own. Takes over the batch. */
export function buildFrameAtOnce(
  batch: PageBatch,
  lane: Lane,
  epoch: number,
  onRelease: () => void,
): OutgoingFrame {
  try {
    const buffer = joined(batch, listOf(batch));
    const payload = buffer.subarray(HEADER_BYTES);
    const payloadHash = hashPayload(payload);
    const packed = { codec: Codec.none, rawBytes: payload.length, payloadHash, buffer };
    return frameOf(batch, lane, epoch, packed, onRelease);
  } catch (error) {
    onRelease();
    throw error;
  } finally {
    batch.release();
  }
}

export interface FrameRequest {
  readonly batch: PageBatch;
  readonly epoch: number;
  /** Where the frame's memory is accounted for; requests get their room in the order of the calls. */
  readonly room: FrameRoom;
  /** The destination has it, or never will. */
  readonly onRelease: () => void;
}

export interface PackedFrameRequest extends Omit<FrameRequest, 'room'> {
  readonly lane: Lane;
  readonly codec: Exclude<PackCodec, 'none'>;
  /** How hasty the packing is, 1 (the default) being the most thorough. */
  readonly acceleration?: number;
  /** Absent for what must not wait: then the frame has memory of its own. */
  readonly room?: FrameRoom;
}

/** A bulk frame that is not compressed. Takes over the batch. */
export async function buildPlainFrame({
  batch,
  epoch,
  room,
  onRelease,
}: FrameRequest): Promise<OutgoingFrame> {
  let held = 0;
  const release = (): void => {
    batch.release();
    room.give(held);
    onRelease();
  };
  try {
    held = await room.take(batch.content.buffer.byteLength);
    const list = listOf(batch);
    const buffer = inPlace(batch, list) ?? joined(batch, list);
    const payload = buffer.subarray(HEADER_BYTES);
    const payloadHash = await checksumAsync(payload);
    const packed = { codec: Codec.none, rawBytes: payload.length, payloadHash, buffer };
    return frameOf(batch, 'bulk', epoch, packed, release);
  } catch (error) {
    release();
    throw error;
  }
}

/** Compressed by a worker, if that makes it smaller. Takes over the batch. */
export async function buildPackedFrame(request: PackedFrameRequest): Promise<OutgoingFrame> {
  const { batch, lane, epoch, codec, acceleration = 1, room, onRelease } = request;
  let lent: Buffer | undefined;
  const release = (): void => {
    if (lent) room?.takeBack(lent);
    onRelease();
  };
  try {
    if (room) lent = await room.lend(frameBytes(batch));
    const memory = lent ?? Buffer.allocUnsafeSlow(frameBytes(batch));
    const list = listOf(batch);
    const payload = (inPlace(batch, list) ?? joined(batch, list)).subarray(HEADER_BYTES);
    const {
      bytes,
      codec: used,
      hi,
      lo,
    } = await pack(payload, memory.subarray(HEADER_BYTES), {
      codec,
      acceleration,
    });
    const result = {
      codec: used === 'lz4' ? Codec.lz4 : Codec.none,
      rawBytes: payload.length,
      payloadHash: { hi, lo },
      buffer: memory.subarray(0, HEADER_BYTES + bytes),
    };
    return frameOf(batch, lane, epoch, result, release);
  } catch (error) {
    release();
    throw error;
  } finally {
    batch.release();
  }
}
