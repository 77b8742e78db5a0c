/** A page batch becomes a frame: list and content lie in one piece, packed on a worker thread. */
import { encodePageList, maxPageListBytes } from '@vmferry/engine/carriage/page-payload';
import type { PageBatch } from '@vmferry/engine/guest';
import { type PackCodec, pack } from '@vmferry/native/kernels';
import {
  Codec,
  FrameFlag,
  FrameKind,
  HEADER_BYTES,
  hashPayload,
  type OutgoingFrame,
} from '@vmferry/wire/frame';

export interface FrameMemory {
  readonly bytes: Uint8Array;
  release(): void;
}

/** Memory that the frame of this batch needs at most. */
export function frameBytes(batch: PageBatch): number {
  return HEADER_BYTES + maxPageListBytes(batch.pages.length) + batch.content.length;
}

/** The batch's list right before its content, without a copy where the batch has the room for it. */
function payloadOf(batch: PageBatch, scratch: Uint8Array): Uint8Array {
  const { content, headroomBytes } = batch;
  const listBytes = encodePageList(batch, scratch, 0);
  if (content.length === 0) return scratch.subarray(0, listBytes);
  if (headroomBytes < listBytes) {
    const joined = new Uint8Array(listBytes + content.length);
    joined.set(scratch.subarray(0, listBytes));
    joined.set(content, listBytes);
    return joined;
  }
  const payload = new Uint8Array(content.buffer, content.byteOffset - listBytes, listBytes + content.length);
  payload.set(scratch.subarray(0, listBytes));
  return payload;
}

/** Small payloads are not worth a worker's round trip. */
const INLINE_BYTES = 16 * 1024;

export interface FrameRequest {
  readonly batch: PageBatch;
  readonly epoch: number;
  readonly codec: PackCodec;
  readonly memory: FrameMemory;
  /** The destination has it, or never will. */
  readonly onRelease: () => void;
}

/** Takes over the batch and the memory. */
export async function buildPageFrame({
  batch,
  epoch,
  codec,
  memory,
  onRelease,
}: FrameRequest): Promise<OutgoingFrame> {
  const { block, round, lane } = batch;
  const count = batch.pages.length;
  try {
    const scratch = new Uint8Array(maxPageListBytes(count));
    const payload = payloadOf(batch, scratch);
    const target = memory.bytes.subarray(HEADER_BYTES);
    let bytes = payload.length;
    let packedCodec: 'none' | 'lz4' = 'none';
    let payloadHash: { hi: number; lo: number };
    if (codec === 'none' || payload.length < INLINE_BYTES) {
      target.set(payload);
      payloadHash = hashPayload(target.subarray(0, bytes));
    } else {
      const packed = await pack(payload, target, { codec });
      bytes = packed.bytes;
      packedCodec = packed.codec;
      payloadHash = { hi: packed.hi, lo: packed.lo };
    }
    return {
      kind: FrameKind.pages,
      flags: lane === 'express' ? FrameFlag.express : 0,
      codec: packedCodec === 'lz4' ? Codec.lz4 : Codec.none,
      epoch,
      round,
      block,
      count,
      rawBytes: payload.length,
      payloadHash,
      buffer: memory.bytes.subarray(0, HEADER_BYTES + bytes),
      release: () => {
        memory.release();
        onRelease();
      },
    };
  } catch (error) {
    memory.release();
    onRelease();
    throw error;
  } finally {
    batch.release();
  }
}
