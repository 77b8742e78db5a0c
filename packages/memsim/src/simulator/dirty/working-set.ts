/** The writable working set: which pages a workload dirties from one moment to another, each counted once. */
import type { AccessRates } from './access-rates.ts';
import { type Cells, layOut, measure } from './cells.ts';
import { type Region, readsAsWrites, type Workload } from './regions.ts';
import type { Span, Walk, Writer } from './writer.ts';
import { writerOf } from './writers.ts';

export class WorkingSet {
  readonly cells: Cells;
  readonly #workload: Workload;
  readonly #writer: Writer;

  /** @param apart where memory is to be told apart besides */
  constructor(workload: Workload, memoryPages: number, apart: readonly Region[] = []) {
    this.cells = layOut(memoryPages, workload, apart);
    this.#workload = workload;
    this.#writer = writerOf(workload, this.cells);
  }

  /** The share of each cell that is dirtied from `a` up to `b`, in seconds of the workload's time. */
  dirtied(a: number, b: number, into: Float64Array = this.newSet()): Float64Array {
    into.fill(1);
    if (b > a) this.#writer.spare(a, b, into);
    for (let cell = 0; cell < into.length; cell += 1) into[cell] = 1 - into[cell]!;
    return into;
  }

  /** Different pages that are dirtied from `a` up to `b`. */
  distinctPages(a: number, b: number): number {
    return measure(this.cells, this.dirtied(a, b));
  }

  /** Different pages that are read or written from `a` up to `b`. */
  touchedPages(a: number, b: number): number {
    const spared = this.newSet().fill(1);
    if (b > a) writerOf(readsAsWrites(this.#workload), this.cells).spare(a, b, spared);
    return measure(
      this.cells,
      spared.map((share) => 1 - share),
    );
  }

  /** Accesses a second to each cell at random, reads and writes. */
  access(span: Span, rates: AccessRates): void {
    rates.clear();
    this.#writer.access(span, rates);
  }

  walks(span: Span): readonly Walk[] {
    const walks: Walk[] = [];
    this.#writer.walks(span, walks);
    return walks;
  }

  /** Names the phases that there are at `t`. */
  turn(t: number): string {
    return this.#writer.turn(t);
  }

  /** When accesses change next, after `t`; infinite if they do not. */
  nextChange(t: number): number {
    return this.#writer.nextChange(t);
  }

  /** An empty set of pages. */
  newSet(): Float64Array {
    return new Float64Array(this.cells.count.length);
  }
}
