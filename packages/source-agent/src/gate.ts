/** A place where whoever comes waits while it is closed. */
export class Gate {
  #closed = false;
  #waiting: (() => void)[] = [];

  close(): void {
    this.#closed = true;
  }

  open(): void {
    this.#closed = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  async passed(): Promise<void> {
    while (this.#closed) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}
