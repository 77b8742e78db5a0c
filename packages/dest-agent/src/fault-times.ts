/** How long vCPUs waited for pages: from the hypervisor's request until it took the page. */
import { AwaitedPages } from '@vmferry/engine/carriage/awaited-pages';
import type { PageRange } from '@vmferry/engine/guest';
import { Quantiles } from '@vmferry/engine/report/quantiles';
import { type BlockIndex, millis } from '@vmferry/engine/units';

export class FaultTimes {
  readonly #since = new AwaitedPages<number>();
  readonly #times = new Quantiles();

  /** Returns false for a page that is waited for already: it need not be asked for again. */
  asked({ block, first }: PageRange): boolean {
    if (this.#since.has(block, first)) return false;
    this.#since.set(block, first, performance.now());
    return true;
  }

  arrived(block: BlockIndex, pages: Uint32Array): void {
    const waits = this.#since.arrived(block, pages);
    if (waits.length === 0) return;
    const now = performance.now();
    for (const since of waits) this.#times.add(millis(now - since));
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
