/**
 * QEMU's answers, destination to source, both ways. Sans-I/O.
 *
 *     u16 type, u16 length, payload        requests without a name mean the block of the one before
 *     recv-bitmap ─▶ u64 length ─▶ bitmap ─▶ u64 end mark
 */
import type { Bytes } from '@vmferry/engine/units';
import { StreamError } from './error.ts';
import { MAX_NAME_BYTES, RECV_BITMAP_END, ReplyType } from './format.ts';
import { Intake } from './intake.ts';

/** Where there are `bytes`, they are the whole message, to be carried untouched. */
export type Reply =
  /** The destination is done, or failed when `value` is not 0. */
  | { readonly type: 'shut'; readonly value: number; readonly bytes: Uint8Array }
  | { readonly type: 'pong'; readonly value: number; readonly bytes: Uint8Array }
  /** A vCPU waits for these bytes of the block. */
  | {
      readonly type: 'request-pages';
      readonly blockName: string;
      readonly start: Bytes;
      readonly length: Bytes;
    }
  | { readonly type: 'recv-bitmap'; readonly blockName: string; readonly bytes: Uint8Array }
  | { readonly type: 'resume-ack'; readonly value: number; readonly bytes: Uint8Array }
  /** The destination agrees to the switchover (QEMU 8.1 and later). */
  | { readonly type: 'switchover-ack'; readonly bytes: Uint8Array }
  /** Of an unknown type, or a piece of a bitmap. */
  | { readonly type: 'carried'; readonly bytes: Uint8Array };

type State = 'header' | 'payload' | 'bitmap-length' | 'bitmap' | 'bitmap-end';

const MAX_BITMAP_BYTES = 2 ** 29;
/** What QEMU takes for consent. */
const RESUME_ACK = 1;

export class ReturnPathDecoder {
  readonly #input = new Intake(0x10000);
  #state: State = 'header';
  #type = 0;
  #length = 0;
  #header = Buffer.alloc(4);
  #bitmapLeft = 0;
  #requestBlock: string | undefined;

  /** The messages that are whole now. Throws `StreamError` where the bytes break the protocol. */
  push(chunk: Uint8Array): Reply[] {
    const out: Reply[] = [];
    this.#input.push(chunk);
    while (this.#step(out)) {}
    return out;
  }

  /** No more input comes. False if it ends within a message. */
  finish(): boolean {
    return this.#state === 'header' && this.#input.carried === 0;
  }

  #step(out: Reply[]): boolean {
    const input = this.#input;
    switch (this.#state) {
      case 'header':
        if (!input.take(4)) return false;
        this.#type = input.u16();
        this.#length = input.u16(2);
        input.buf.copy(this.#header, 0, input.at, input.at + 4);
        if (this.#type === 0) throw new StreamError('The destination sent a reply of type 0.');
        this.#state = 'payload';
        return true;
      case 'payload': {
        if (!input.take(this.#length)) return false;
        this.#state = 'header';
        out.push(this.#readMessage());
        return true;
      }
      case 'bitmap-length':
        if (!input.take(8)) return false;
        this.#bitmapLeft = input.u64();
        if (this.#bitmapLeft > MAX_BITMAP_BYTES) {
          throw new StreamError(`A page bitmap of ${this.#bitmapLeft} bytes is not sane.`);
        }
        out.push({ type: 'carried', bytes: this.#copy(8) });
        this.#state = 'bitmap';
        return true;
      case 'bitmap': {
        const count = Math.min(this.#bitmapLeft, input.left, 0x10000);
        if (count === 0 && this.#bitmapLeft > 0) return false;
        if (input.take(count) && count > 0) out.push({ type: 'carried', bytes: this.#copy(count) });
        this.#bitmapLeft -= count;
        if (this.#bitmapLeft === 0) this.#state = 'bitmap-end';
        return true;
      }
      default:
        if (!input.take(8)) return false;
        if (input.buf.readBigUInt64BE(input.at) !== RECV_BITMAP_END) {
          throw new StreamError('A page bitmap ends without its mark.');
        }
        out.push({ type: 'carried', bytes: this.#copy(8) });
        this.#state = 'header';
        return true;
    }
  }

  /** The piece last taken, in memory of its own. */
  #copy(length: number): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#input.buf, this.#input.at, this.#input.at + length);
  }

  #message(): Uint8Array {
    const bytes = new Uint8Array(4 + this.#length);
    bytes.set(this.#header);
    bytes.set(this.#input.buf.subarray(this.#input.at, this.#input.at + this.#length), 4);
    return bytes;
  }

  #expect(length: number): void {
    if (this.#length !== length) {
      throw new StreamError(
        `A reply of type ${this.#type} carries ${this.#length} bytes where it has ${length}.`,
      );
    }
  }

  #readMessage(): Reply {
    const input = this.#input;
    switch (this.#type) {
      case ReplyType.shut:
        this.#expect(4);
        return { type: 'shut', value: input.u32(), bytes: this.#message() };
      case ReplyType.pong:
        this.#expect(4);
        return { type: 'pong', value: input.u32(), bytes: this.#message() };
      case ReplyType.resumeAck:
        this.#expect(4);
        return { type: 'resume-ack', value: input.u32(), bytes: this.#message() };
      case ReplyType.switchoverAck:
        this.#expect(0);
        return { type: 'switchover-ack', bytes: this.#message() };
      case ReplyType.requestPagesNamed:
        if (this.#length < 14)
          throw new StreamError(`A named page request of ${this.#length} bytes is too short.`);
        this.#expect(13 + input.u8(12));
        this.#requestBlock = input.text(13, input.u8(12));
        return this.#request();
      case ReplyType.requestPages:
        this.#expect(12);
        return this.#request();
      case ReplyType.recvBitmap:
        if (this.#length < 2) throw new StreamError('A page bitmap names no block.');
        this.#expect(1 + input.u8());
        this.#state = 'bitmap-length';
        return { type: 'recv-bitmap', blockName: input.text(1, input.u8()), bytes: this.#message() };
      default:
        return { type: 'carried', bytes: this.#message() };
    }
  }

  #request(): Reply {
    const blockName = this.#requestBlock;
    if (blockName === undefined) throw new StreamError('The first page request names no block.');
    const start = this.#input.u64();
    const length = this.#input.u32(8);
    if (start + length > Number.MAX_SAFE_INTEGER)
      throw new StreamError(`A page request at byte ${start} is not sane.`);
    return { type: 'request-pages', blockName, start: start as Bytes, length: length as Bytes };
  }
}

/** The most whole huge pages (1 GiB) that 32 bits hold. */
const MAX_REQUEST_BYTES = 3 * 2 ** 30;

/** Writes replies for the source's QEMU. One for each return path: requests lean on the one before. */
export class ReturnPathEncoder {
  #requestBlock: string | undefined;

  /** `start` and `length` in bytes, whole host pages. Longer than 32 bits hold becomes several messages. */
  requestPages(blockName: string, start: number, length: number): Uint8Array {
    const parts: Buffer[] = [];
    for (let done = 0; done < length; done += MAX_REQUEST_BYTES) {
      parts.push(this.#request(blockName, start + done, Math.min(length - done, MAX_REQUEST_BYTES)));
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  /** The answer to a ping. */
  pong(value: number): Uint8Array {
    return encodeValue(ReplyType.pong, value);
  }

  /** 0: all is loaded; anything else: the destination failed. */
  shut(value: number): Uint8Array {
    return encodeValue(ReplyType.shut, value);
  }

  /** The post-copy that was paused goes on. */
  resumeAck(): Uint8Array {
    return encodeValue(ReplyType.resumeAck, RESUME_ACK);
  }

  /** The answer to `recv-bitmap`: which pages of the block are here, all of them or none. */
  pagesHere(which: 'all' | 'none', blockName: string, pageCount: number): Uint8Array {
    const name = Buffer.from(blockName, 'latin1');
    const bitmapBytes = Math.ceil(pageCount / 64) * 8;
    const out = Buffer.alloc(4 + 1 + name.length + 8 + bitmapBytes + 8, which === 'all' ? 0xff : 0);
    out.writeUInt16BE(ReplyType.recvBitmap, 0);
    out.writeUInt16BE(1 + name.length, 2);
    out[4] = name.length;
    out.set(name, 5);
    out.writeBigUInt64BE(BigInt(bitmapBytes), 5 + name.length);
    out.writeBigUInt64BE(RECV_BITMAP_END, out.length - 8);
    return out;
  }

  #request(blockName: string, start: number, length: number): Buffer {
    const named = blockName !== this.#requestBlock;
    const name = named ? Buffer.from(blockName, 'latin1') : Buffer.alloc(0);
    if (name.length > MAX_NAME_BYTES) throw new RangeError(`The block name ${blockName} is too long.`);
    const out = Buffer.alloc(4 + 12 + (named ? 1 + name.length : 0));
    out.writeUInt16BE(named ? ReplyType.requestPagesNamed : ReplyType.requestPages, 0);
    out.writeUInt16BE(out.length - 4, 2);
    out.writeBigUInt64BE(BigInt(start), 4);
    out.writeUInt32BE(length, 12);
    if (named) {
      out[16] = name.length;
      out.set(name, 17);
    }
    this.#requestBlock = blockName;
    return out;
  }
}

function encodeValue(type: number, value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt16BE(type, 0);
  out.writeUInt16BE(4, 2);
  out.writeUInt32BE(value >>> 0, 4);
  return out;
}
