const TWO_32 = 0x1_0000_0000;

/**
 * A cursor over input that comes in chunks of any size. `take(n)` makes the next `n` bytes readable as one
 * piece: in the chunk itself where they lie whole, in a small buffer where a boundary cuts them. The last
 * piece taken is `buf` from `at` on.
 */
export class Intake {
  chunk: Buffer = Buffer.alloc(0);
  pos = 0;
  /** Where the last piece taken begins. */
  buf: Buffer = this.chunk;
  at = 0;
  /** Bytes consumed before the present chunk. */
  #before = 0;
  readonly #carry: Buffer;
  #carried = 0;

  /** `largest` is the longest piece that is ever taken, in bytes. */
  constructor(largest: number) {
    this.#carry = Buffer.allocUnsafe(largest);
  }

  /** Hands over the next chunk. The one before must be used up. */
  push(chunk: Uint8Array): void {
    this.#before += this.chunk.length;
    this.chunk = Buffer.isBuffer(chunk)
      ? chunk
      : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.pos = 0;
  }

  get left(): number {
    return this.chunk.length - this.pos;
  }

  /** Bytes of a piece that is not whole yet. */
  get carried(): number {
    return this.#carried;
  }

  /** Offset in the whole input of the next byte to be read. */
  get offset(): number {
    return this.#before + this.pos;
  }

  /** False when the input does not reach: what is there is kept, and the same `n` is to be asked for again. */
  take(n: number): boolean {
    if (this.#carried === 0 && this.left >= n) {
      this.buf = this.chunk;
      this.at = this.pos;
      this.pos += n;
      return true;
    }
    const more = Math.min(n - this.#carried, this.left);
    this.chunk.copy(this.#carry, this.#carried, this.pos, this.pos + more);
    this.pos += more;
    this.#carried += more;
    if (this.#carried < n) return false;
    this.buf = this.#carry;
    this.at = 0;
    this.#carried = 0;
    return true;
  }

  u8(offset = 0): number {
    return this.buf[this.at + offset]!;
  }

  u16(offset = 0): number {
    return this.buf.readUInt16BE(this.at + offset);
  }

  u32(offset = 0): number {
    return this.buf.readUInt32BE(this.at + offset);
  }

  /** Exact up to 2^53; above that only good for being refused. */
  u64(offset = 0): number {
    return this.u32(offset) * TWO_32 + this.u32(offset + 4);
  }

  /** A name in the piece taken. Latin-1, so that any bytes come back as they were. */
  text(offset: number, length: number): string {
    return this.buf.toString('latin1', this.at + offset, this.at + offset + length);
  }
}
