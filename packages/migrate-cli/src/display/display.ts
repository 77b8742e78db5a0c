/** The running migration on standard error: one refreshing block in a terminal, plain lines elsewhere. */
import type { MigrationEvent } from '@vmferry/engine/events';
import type { Output } from '../io.ts';
import { formatDuration, formatRate, formatSize } from '../units.ts';
import {
  initialState,
  nextState,
  type ProgressState,
  phaseWords,
  plain,
  renderBlock,
  renderLine,
} from './progress.ts';

export interface Display {
  event(event: MigrationEvent): void;
  /** A line of the command itself, kept above the block. */
  say(text: string): void;
  /** Takes the block away; nothing is shown afterwards. */
  end(): void;
}

export interface DisplayOptions {
  readonly output: Output;
  readonly id: string;
  readonly guest: string;
  readonly to: string;
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

const REFRESH_MS = 200;
const LINE_MS = 1000;

/** For `--json`: only what the command itself has to say. */
export function quietDisplay(output: Output): Display {
  return { event: () => {}, say: (text) => void output.write(`${text}\n`), end: () => {} };
}

export function createDisplay(options: DisplayOptions): Display {
  const now = options.now ?? (() => performance.now());
  return options.output.isTTY === true ? new BlockDisplay(options, now) : new LineDisplay(options, now);
}

class BlockDisplay implements Display {
  readonly #output: Output;
  readonly #now: () => number;
  readonly #startedAt: number;
  readonly #timer: NodeJS.Timeout;
  #state: ProgressState;
  #drawn = 0;

  constructor(options: DisplayOptions, now: () => number) {
    this.#output = options.output;
    this.#now = now;
    this.#startedAt = now();
    this.#state = initialState(options.guest, options.to);
    this.#timer = setInterval(() => this.#draw(), REFRESH_MS);
    this.#timer.unref();
    this.#draw();
  }

  event(event: MigrationEvent): void {
    this.#state = nextState(this.#state, event);
    if (event.type === 'note') this.say(plain(event.text));
    else if (event.type === 'phase') this.#draw();
  }

  say(text: string): void {
    this.#output.write(`${this.#erase()}${text}\n`);
    this.#draw();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#output.write(this.#erase());
  }

  #draw(): void {
    const lines = renderBlock(this.#state, this.#output.columns ?? 80, this.#now() - this.#startedAt);
    this.#output.write(`${this.#erase()}${lines.join('\n')}\n`);
    this.#drawn = lines.length;
  }

  /** The cursor goes up over the block, and everything from there on is erased. */
  #erase(): string {
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A\r\x1b[J` : '';
    this.#drawn = 0;
    return up;
  }
}

class LineDisplay implements Display {
  readonly #output: Output;
  readonly #now: () => number;
  readonly #startedAt: number;
  #state: ProgressState;
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(options: DisplayOptions, now: () => number) {
    this.#output = options.output;
    this.#now = now;
    this.#startedAt = now();
    this.#state = initialState(options.guest, options.to);
    this.say(`moving ${plain(options.guest)} to ${plain(options.to)} (migration ${plain(options.id)})`);
  }

  event(event: MigrationEvent): void {
    this.#state = nextState(this.#state, event);
    const elapsed = this.#now() - this.#startedAt;
    switch (event.type) {
      case 'phase':
        this.say(`${formatDuration(elapsed)}  ${phaseWords(event.phase)}`);
        break;
      case 'decision':
        this.say(`${formatDuration(elapsed)}  ${plain(`${event.what}: ${event.why}`)}`);
        break;
      case 'note':
        this.say(`${formatDuration(elapsed)}  ${plain(event.text)}`);
        break;
      case 'round': {
        const { row } = event;
        this.say(
          `${formatDuration(elapsed)}  round ${row.round}: ${formatSize(row.rawBytes)} in ` +
            `${formatDuration(row.durationMs)} at ${formatRate(row.bandwidthBytesPerSec)}`,
        );
        break;
      }
      case 'progress':
        if (this.#now() - this.#saidAt >= LINE_MS) {
          this.#saidAt = this.#now();
          this.say(renderLine(this.#state, elapsed));
        }
        break;
      case 'started':
      case 'finished':
        break;
    }
  }

  say(text: string): void {
    this.#output.write(`${text}\n`);
  }

  end(): void {}
}
