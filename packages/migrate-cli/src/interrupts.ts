/** What SIGINT, SIGTERM and SIGHUP do to a migration that this command follows. */
import { messageOf } from '@vmferry/engine/errors';
import type { CommandContext } from './context.ts';
import type { Display } from './display/display.ts';
import { onInterrupt, write } from './io.ts';

/** The first SIGINT, SIGTERM or SIGHUP cancels; later ones are told that it is being done. */
export class Interrupts {
  /** Resolves at the first one. */
  readonly first: Promise<'interrupted'>;
  readonly #context: CommandContext;
  readonly #stop: () => void;
  #times = 0;
  #cancel: (() => Promise<unknown>) | undefined;
  #display: Display | undefined;
  #interrupted: (value: 'interrupted') => void = () => {};

  constructor(context: CommandContext) {
    this.#context = context;
    this.first = new Promise((resolve) => {
      this.#interrupted = resolve;
    });
    this.#stop = onInterrupt(context.io.signals, (times) => this.#heard(times));
  }

  /** A cancellation that was asked for before there was anything to cancel is done now. */
  cancelWith(cancel: () => Promise<unknown>): void {
    this.#cancel = cancel;
    if (this.#times > 0) this.#cancelNow(cancel);
  }

  speakThrough(display: Display): void {
    this.#display = display;
  }

  close(): void {
    this.#stop();
  }

  #heard(times: number): void {
    this.#times = times;
    this.#interrupted('interrupted');
    if (times > 1) {
      this.#say(
        'still cancelling: the outcome is not known yet, and leaving now would not make it any sooner',
      );
    } else if (this.#cancel !== undefined) {
      this.#cancelNow(this.#cancel);
    }
  }

  #cancelNow(cancel: () => Promise<unknown>): void {
    this.#say('cancelling; waiting for the outcome');
    cancel().catch((error: unknown) => {
      this.#say(`cannot cancel: ${messageOf(error)}`);
    });
  }

  #say(text: string): void {
    if (this.#display === undefined) void write(this.#context.io.stderr, `${text}\n`);
    else this.#display.say(text);
  }
}
