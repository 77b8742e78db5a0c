const NEWLINE = 0x0a;

/**
 * Cuts a byte stream into lines. Lines are decoded as a whole, so that a chunk may end anywhere, within a
 * UTF-8 character too.
 */
export class LineSplitter {
  #parts: Buffer[] = [];
  #held = 0;

  constructor(readonly limitBytes: number) {}

  /** Yields the lines that `chunk` completes, without their ends. Throws `RangeError` past the limit. */
  *push(chunk: Buffer): Generator<string> {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      this.#hold(chunk.subarray(from, end));
      const line = this.#take();
      from = end + 1;
      yield line.endsWith('\r') ? line.slice(0, -1) : line;
    }
    if (from < chunk.length) this.#hold(chunk.subarray(from));
  }

  /** Whether bytes of an unfinished line are held. */
  get partial(): boolean {
    return this.#held > 0;
  }

  #hold(part: Buffer): void {
    this.#held += part.length;
    if (this.#held > this.limitBytes) throw new RangeError(`a line is longer than ${this.limitBytes} bytes`);
    this.#parts.push(part);
  }

  #take(): string {
    const line = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#held);
    this.#parts = [];
    this.#held = 0;
    return line.toString('utf8');
  }
}
