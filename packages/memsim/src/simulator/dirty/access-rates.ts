/**
 * Accesses a second to each cell at random. A working set that moves is in few cells at a time, and moves often: only
 * cells that are accessed cost anything.
 */
import type { Cells } from './cells.ts';

export class AccessRates {
  /** Of each cell. */
  readonly perSec: Float64Array;
  readonly #stretchOf: Int32Array;
  readonly #count: Float64Array;
  readonly #cells: Int32Array;
  readonly #stretches: Int32Array;
  /** Of each stretch, whether it is among those. */
  readonly #seen: Uint8Array;
  #cellCount = 0;
  #stretchCount = 0;

  constructor(cells: Cells) {
    this.perSec = new Float64Array(cells.count.length);
    this.#stretchOf = cells.stretch;
    this.#count = cells.count;
    this.#cells = new Int32Array(cells.count.length);
    this.#stretches = new Int32Array(cells.first.length);
    this.#seen = new Uint8Array(cells.first.length);
  }

  /** Cells that are accessed, in no order, each once. */
  get cells(): Int32Array {
    return this.#cells.subarray(0, this.#cellCount);
  }

  /** Stretches with such cells, in no order, each once. */
  get stretches(): Int32Array {
    return this.#stretches.subarray(0, this.#stretchCount);
  }

  /** So many to each page of the cells from `from` up to `to`. */
  addEvenly(from: number, to: number, perPage: number): void {
    if (!(perPage > 0)) return;
    const count = this.#count;
    for (let cell = from; cell < to; cell += 1) this.add(cell, perPage * count[cell]!);
  }

  add(cell: number, perSec: number): void {
    if (!(perSec > 0)) return;
    const before = this.perSec[cell]!;
    this.perSec[cell] = before + perSec;
    if (before > 0) return;
    this.#cells[this.#cellCount] = cell;
    this.#cellCount += 1;
    this.#note(this.#stretchOf[cell]!);
  }

  clear(): void {
    for (let index = 0; index < this.#cellCount; index += 1) this.perSec[this.#cells[index]!] = 0;
    for (let index = 0; index < this.#stretchCount; index += 1) this.#seen[this.#stretches[index]!] = 0;
    this.#cellCount = 0;
    this.#stretchCount = 0;
  }

  #note(stretch: number): void {
    if (this.#seen[stretch] === 1) return;
    this.#seen[stretch] = 1;
    this.#stretches[this.#stretchCount] = stretch;
    this.#stretchCount += 1;
  }
}
