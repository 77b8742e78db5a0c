/** A counting semaphore; whoever asks while none is left waits in line. */
export class Permits {
  readonly #waiting: (() => void)[] = [];
  #free: number;
  #closed = false;

  constructor(count: number) {
    this.#free = count;
  }

  get free(): number {
    return this.#free;
  }

  /** True if there was no need to wait. */
  tryTake(): boolean {
    if (this.#free <= 0 && !this.#closed) return false;
    this.#free -= 1;
    return true;
  }

  take(): Promise<void> {
    if (this.tryTake()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free += 1;
  }

  /** Everybody passes from now on. */
  close(): void {
    this.#closed = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
