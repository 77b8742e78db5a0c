import type { Socket } from 'node:net';
import { within } from './process.ts';

export interface SerialLine {
  readonly text: string;
  /** When its end was received, in milliseconds since 1970. */
  readonly atMs: number;
}

export interface LineOptions {
  /** Default 30 s. */
  readonly timeoutMs?: number;
  /** Look at lines already received, from this position in `lines`; default 0. */
  readonly from?: number;
}

/** The guest's serial port, both ways. Keeps everything that was received. */
export class Serial {
  readonly lines: SerialLine[] = [];
  readonly #socket: Socket;
  readonly #name: string;
  readonly #listeners = new Set<() => void>();
  #text = '';
  #rest = '';
  #closed = false;

  constructor(socket: Socket, name: string) {
    this.#socket = socket;
    this.#name = name;
    socket.setEncoding('latin1');
    socket.on('data', (data: string) => {
      const atMs = performance.timeOrigin + performance.now();
      this.#text += data;
      const parts = (this.#rest + data).split('\n');
      this.#rest = parts.pop() ?? '';
      for (const part of parts) this.lines.push({ text: part.replace(/\r$/, ''), atMs });
      for (const listener of this.#listeners) listener();
    });
    socket.on('error', () => {});
    socket.once('close', () => {
      this.#closed = true;
      for (const listener of this.#listeners) listener();
    });
  }

  /** Everything received, as it came. */
  get text(): string {
    return this.#text;
  }

  writeLine(line: string): void {
    this.#socket.write(`${line}\n`);
  }

  /** Calls `look` on what is there and after each receipt until it returns something. */
  async waitFor<T>(look: () => T | undefined, what: string, timeoutMs = 30_000): Promise<T> {
    const already = look();
    if (already !== undefined) return already;
    let listener = () => {};
    const found = new Promise<T>((resolve, reject) => {
      listener = () => {
        const result = look();
        if (result !== undefined) resolve(result);
        else if (this.#closed)
          reject(new Error(`${this.#name}: serial port closed, no ${what}\n${this.tail()}`));
      };
      this.#listeners.add(listener);
      listener();
    });
    try {
      return await within(
        timeoutMs,
        () => `${this.#name}: no ${what} on the serial port\n${this.tail()}`,
        found,
      );
    } finally {
      this.#listeners.delete(listener);
    }
  }

  waitForLine(matches: (line: string) => boolean, options: LineOptions = {}): Promise<SerialLine> {
    let at = options.from ?? 0;
    const look = () => {
      for (; at < this.lines.length; at++) {
        const line = this.lines[at] as SerialLine;
        if (matches(line.text)) return line;
      }
      return undefined;
    };
    return this.waitFor(look, 'matching line', options.timeoutMs);
  }

  /** The last lines, for messages. */
  tail(count = 10): string {
    return [...this.lines.slice(-count).map((line) => line.text), this.#rest].join('\n');
  }

  close(): void {
    this.#socket.destroy();
  }
}
