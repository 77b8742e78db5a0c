/** How long vCPUs waited for pages: from the hypervisor's request until it took the page. */
import type { PageRange } from '@vmferry/engine/guest';
import { Quantiles } from '@vmferry/engine/report/quantiles';
import { type BlockIndex, millis } from '@vmferry/engine/units';

const PAGES_OF_BLOCK = 2 ** 32;

export class FaultTimes {
  readonly #since = new Map<number, number>();
  readonly #times = new Quantiles();

  /** Returns false for a page that is waited for already: it need not be asked for again. */
  asked({ block, first }: PageRange): boolean {
    const key = block * PAGES_OF_BLOCK + first;
    if (this.#since.has(key)) return false;
    this.#since.set(key, performance.now());
    return true;
  }

  arrived(block: BlockIndex, pages: Uint32Array): void {
    if (this.#since.size === 0) return;
    const now = performance.now();
    for (const page of pages) {
      const key = block * PAGES_OF_BLOCK + page;
      const since = this.#since.get(key);
      if (since === undefined) continue;
      this.#since.delete(key);
      this.#times.add(millis(now - since));
    }
  }

  summary(): {
    readonly count: number;
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly maxMs: number;
  } {
    return {
      count: this.#times.count,
      p50Ms: this.#times.quantile(0.5),
      p99Ms: this.#times.quantile(0.99),
      maxMs: this.#times.max,
    };
  }
}
