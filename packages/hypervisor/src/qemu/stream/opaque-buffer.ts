const SMALL_BYTES = 4096;
/** Each item costs both agents a frame and a barrier. */
const GATHERED_BYTES = 64 * 1024;

/** Gathers small opaque records, so that they leave as one item. Grows by doubling. */
export class OpaqueBuffer {
  #bytes = Buffer.allocUnsafe(4096);
  length = 0;

  /** Appends it if it is small and there is room for it in an item; else false. */
  takes(record: Uint8Array): boolean {
    if (record.length > SMALL_BYTES || this.length + record.length > GATHERED_BYTES) return false;
    this.append(record);
    return true;
  }

  append(source: Uint8Array, from = 0, to = source.length): void {
    const need = this.length + (to - from);
    if (need > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(need, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, this.length);
      this.#bytes = grown;
    }
    this.#bytes.set(source.subarray(from, to), this.length);
    this.length = need;
  }

  /** Takes out the first `count` bytes, in memory of their own. */
  take(count = this.length): Uint8Array {
    const out = new Uint8Array(count);
    out.set(this.#bytes.subarray(0, count));
    this.#bytes.copyWithin(0, count, this.length);
    this.length -= count;
    return out;
  }
}
