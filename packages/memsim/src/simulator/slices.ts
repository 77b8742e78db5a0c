/** Parts of memory, in order of addresses, of which a round sends one after the other. */
import { type Cells, stretchAt } from './dirty/cells.ts';
import type { Region } from './dirty/regions.ts';

/** Where it matters when a page has its turn, a round is looked at in so many parts. */
const SLICES = 32;

export class Slices {
  readonly count: number;
  readonly #cells: Cells;
  /** Stretches at which slices begin, and the end. */
  readonly #begins: readonly number[];

  /** @param apart where one slice ends and another begins, besides */
  constructor(cells: Cells, apart: readonly Region[]) {
    const { length } = cells.first;
    const evenly = Array.from({ length: SLICES + 1 }, (_, slice) => Math.floor((length * slice) / SLICES));
    const bounds = apart
      .flatMap(({ first, pages }) => [first, first + pages])
      .filter((page) => page < cells.memoryPages)
      .map((page) => stretchAt(cells, page));
    this.#cells = cells;
    this.#begins = [...new Set([...evenly, ...bounds])].sort((a, b) => a - b);
    this.count = this.#begins.length - 1;
  }

  /** The cells of a slice: the first, and the one after the last. */
  cellsOf(slice: number): readonly [number, number] {
    const { from } = this.#cells;
    return [from[this.#begins[slice]!]!, from[this.#begins[slice + 1]!]!];
  }

  /** Where a slice begins, as a share of memory. */
  edge(slice: number): number {
    const { first, memoryPages } = this.#cells;
    const stretch = this.#begins[slice]!;
    return stretch < first.length ? first[stretch]! / memoryPages : 1;
  }
}
