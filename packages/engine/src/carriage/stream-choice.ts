/**
 * Which of several streams a page batch takes.
 *
 * Streams overtake each other, so a page that is sent again while its older copy is on its way must take the
 * same stream. Everything else goes where the least is on its way. What is on its way is kept by areas of
 * 64 pages, and forgotten when the destination has acknowledged it, so the table stays as small as what is
 * in flight.
 */
import type { BlockIndex } from '../units.ts';

const AREA_SHIFT = 6;
/** Areas of one block: 2^32 pages. */
const AREAS_OF_BLOCK = 2 ** 26;

interface Flight {
  stream: number;
  frames: number;
}

export interface Passage {
  readonly stream: number;
  readonly areas: readonly number[];
  readonly bytes: number;
}

export class StreamChoice {
  readonly #load: number[];
  readonly #flights = new Map<number, Flight>();

  constructor(streams: number) {
    this.#load = new Array<number>(streams).fill(0);
  }

  /**
   * The stream for these pages, booked until `landed`; undefined when older copies are on their way on two
   * streams: wait for a `landed` then.
   */
  board(block: BlockIndex, pages: Uint32Array, bytes: number): Passage | undefined {
    if (this.#load.length === 1) return { stream: 0, areas: [], bytes: 0 };
    const areas = areasOf(block, pages);
    let stream: number | undefined;
    for (const area of areas) {
      const flight = this.#flights.get(area);
      if (!flight) continue;
      if (stream !== undefined && flight.stream !== stream) return undefined;
      stream = flight.stream;
    }
    stream ??= this.#load.indexOf(Math.min(...this.#load));
    for (const area of areas) {
      const flight = this.#flights.get(area);
      if (flight) flight.frames += 1;
      else this.#flights.set(area, { stream, frames: 1 });
    }
    this.#load[stream]! += bytes;
    return { stream, areas, bytes };
  }

  /** The destination has it. */
  landed(passage: Passage): void {
    for (const area of passage.areas) {
      const flight = this.#flights.get(area);
      if (!flight) continue;
      flight.frames -= 1;
      if (flight.frames === 0) this.#flights.delete(area);
    }
    this.#load[passage.stream]! -= passage.bytes;
  }
}

function areasOf(block: BlockIndex, pages: Uint32Array): number[] {
  const areas = new Set<number>();
  const base = block * AREAS_OF_BLOCK;
  let last = -1;
  for (let index = 0; index < pages.length; index += 1) {
    const area = base + (pages[index]! >>> AREA_SHIFT);
    if (area === last) continue;
    areas.add(area);
    last = area;
  }
  return [...areas];
}
