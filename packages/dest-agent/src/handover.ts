/**
 * Batches go to the guest in their order, and only a few are with it at a time: what a batch becomes there may
 * be far bigger than what came over the wire, so it must not be made before its time.
 */
export interface HandoverOptions<T> {
  /** How many may be with the guest. More than one, so that it never waits for the next. */
  readonly most: number;
  /** Called in the order of `push`, without waiting for the one before. Must not reject. */
  readonly hand: (item: T) => Promise<void>;
  /** An item that never came to be. Those behind it are handed over all the same. */
  readonly onFailure: (error: unknown) => void;
}

export class Handover<T> {
  readonly #options: HandoverOptions<T>;
  readonly #waiting: Promise<T>[] = [];
  #working = false;
  #handed = 0;
  #onRoom: (() => void) | undefined;

  constructor(options: HandoverOptions<T>) {
    this.#options = options;
  }

  /** `item` may still be on its way, and those behind it too. */
  push(item: Promise<T>): void {
    // Looked at when its turn comes.
    item.catch(() => {});
    this.#waiting.push(item);
    if (!this.#working) void this.#work();
  }

  async #work(): Promise<void> {
    const { most, hand, onFailure } = this.#options;
    this.#working = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      try {
        const item = await next;
        while (this.#handed >= most) await this.#room();
        this.#handed += 1;
        void hand(item).then(() => {
          this.#handed -= 1;
          this.#onRoom?.();
        });
      } catch (error) {
        onFailure(error);
      }
    }
    this.#working = false;
  }

  #room(): Promise<void> {
    return new Promise((resolve) => {
      this.#onRoom = resolve;
    });
  }
}
