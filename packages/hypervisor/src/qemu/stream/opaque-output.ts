import type { Intake } from './intake.ts';
import { OpaqueBuffer } from './opaque-buffer.ts';

/**
 * What of the stream goes out as it is. Records in small pieces are gathered until something else comes; long stretches
 * are passed on without a copy, as views into the chunk.
 */
export class OpaqueOutput {
  readonly #input: Intake;
  readonly #emit: (bytes: Uint8Array) => void;
  readonly #pieceBytes: number;
  readonly #gathered = new OpaqueBuffer();
  /** Where in what is gathered the present record begins. */
  #recordAt = 0;
  #count = 0;

  /** @param pieceBytes the most that is passed on in one piece */
  constructor(input: Intake, pieceBytes: number, emit: (bytes: Uint8Array) => void) {
    this.#input = input;
    this.#pieceBytes = pieceBytes;
    this.#emit = emit;
  }

  /** Bytes that went out. */
  get count(): number {
    return this.#count;
  }

  beginRecord(): void {
    this.#recordAt = this.#gathered.length;
  }

  /** Gathers the piece of `n` bytes that was taken last. */
  gather(n: number): void {
    const input = this.#input;
    this.#gathered.append(input.buf, input.at, input.at + n);
  }

  /** Takes a piece and gathers it. False when the input does not reach. */
  take(n: number): boolean {
    if (!this.#input.take(n)) return false;
    this.gather(n);
    return true;
  }

  /** Passes on at most `limit` bytes of the chunk; returns how many. */
  pass(limit: number): number {
    const input = this.#input;
    const count = Math.min(limit, input.left, this.#pieceBytes);
    if (count > 0) {
      this.flush();
      this.send(input.chunk.subarray(input.pos, input.pos + count));
      input.pos += count;
    }
    return count;
  }

  /** Sends what is gathered. */
  flush(): void {
    this.#flush(this.#gathered.length);
  }

  /** Sends what was gathered before the present record. */
  flushBeforeRecord(): void {
    this.#flush(this.#recordAt);
  }

  #flush(count: number): void {
    if (count > 0) this.send(this.#gathered.take(count));
    this.#recordAt = Math.max(0, this.#recordAt - count);
  }

  send(bytes: Uint8Array): void {
    this.#count += bytes.length;
    this.#emit(bytes);
  }
}
