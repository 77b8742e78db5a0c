/**
 * A working set that moves: a window of pages, each as likely as any other, that goes on by a step every so often.
 * Of few moves each window is looked at; of many, the window is taken to glide.
 */
import { type Cells, stretchAt } from './cells.ts';
import type { Region } from './regions.ts';
import { NO_TURN, NOTHING, stretchesOf, type Writer } from './writer.ts';

/** Windows that are looked at one by one. */
const MOST_WINDOWS = 512;
/** After so many times round it has been everywhere about as long. */
const MANY_LAPS = 3;

export interface Moving {
  readonly region: Region;
  readonly pagesPerSec: number;
  readonly windowPages: number;
  readonly everySeconds: number;
  readonly stepPages: number;
}

/** A stretch's stay in the window: of `share` of its pages, for so many seconds each. */
type Stay = (stretch: number, share: number, seconds: number) => void;

export function moving(cells: Cells, options: Moving): Writer {
  const { region, pagesPerSec, everySeconds, stepPages } = options;
  const windowPages = Math.min(options.windowPages, region.pages);
  const perPage = pagesPerSec / windowPages;
  const [start, end] = stretchesOf(cells, region);
  const [from, to] = [cells.from[start]!, cells.from[end]!];
  /** Of each stretch, for the time that all of it is in the window: how much longer than the one before. */
  const longer = new Float64Array(end - start + 1);
  const figure = new Float64Array(end - start);
  const moveAt = (t: number): number => Math.floor(t / everySeconds + 1e-9);

  /** The window as one or two ranges of pages. */
  const rangesAt = (move: number): readonly (readonly [number, number])[] => {
    const low = (move * stepPages) % region.pages;
    const high = low + windowPages;
    if (high <= region.pages) return [[low, high]];
    return [
      [low, region.pages],
      [0, high - region.pages],
    ];
  };
  const shareOf = (stretch: number, low: number, high: number): number => {
    const offset = cells.first[stretch]! - region.first;
    const pages = cells.pages[stretch]!;
    return (Math.min(high, offset + pages) - Math.max(low, offset)) / pages;
  };
  const eachWindow = (a: number, b: number, stays: Stay): void => {
    longer.fill(0);
    for (let at = a; at < b; ) {
      const move = moveAt(at);
      const next = Math.min(b, (move + 1) * everySeconds);
      for (const [low, high] of rangesAt(move)) {
        const first = stretchAt(cells, region.first + low);
        const last = stretchAt(cells, region.first + high - 1);
        stays(first, shareOf(first, low, high), next - at);
        if (last > first) {
          stays(last, shareOf(last, low, high), next - at);
          longer[first + 1 - start]! += next - at;
          longer[last - start]! -= next - at;
        }
      }
      at = next;
    }
    let seconds = 0;
    for (let stretch = start; stretch < end; stretch += 1) {
      seconds += longer[stretch - start]!;
      if (seconds > 0) stays(stretch, 1, seconds);
    }
  };
  /** The window's begin glides from one page to another. */
  const gliding = (a: number, b: number, stays: Stay): void => {
    const perSec = stepPages / everySeconds;
    // A window that stays for a while is, on average, half a step behind one that glides.
    const place = (a / everySeconds - 0.5) * stepPages;
    const begin = place - Math.floor(place / region.pages) * region.pages;
    const path = (b - a) * perSec;
    // Where steps are longer than the window they leave pages out.
    const met = Math.min(1, windowPages / stepPages);
    const behind = (page: number): number => {
      const passed = Math.min(path, Math.max(0, page));
      return (passed * passed) / 2 + path * Math.max(0, page - path);
    };
    for (let lap = 0; lap * region.pages < begin + path + windowPages; lap += 1) {
      for (let stretch = start; stretch < end; stretch += 1) {
        const pages = cells.pages[stretch]!;
        const low = cells.first[stretch]! - region.first + lap * region.pages - begin;
        const high = low + pages;
        const share = (met * (Math.min(high, path + windowPages) - Math.max(low, 0))) / pages;
        if (share <= 0) continue;
        const all = behind(high) - behind(low) - behind(high - windowPages) + behind(low - windowPages);
        stays(stretch, share, all / perSec / pages / share);
      }
    }
  };
  const stay = (a: number, b: number, stays: Stay): void => {
    const moves = moveAt(b) - moveAt(a);
    if (moves * stepPages >= MANY_LAPS * region.pages) {
      const seconds = ((b - a) * windowPages) / region.pages;
      for (let stretch = start; stretch < end; stretch += 1) stays(stretch, 1, seconds);
    } else if (moves <= MOST_WINDOWS) eachWindow(a, b, stays);
    else gliding(a, b, stays);
  };

  return {
    spare: (a, b, untouched) => {
      if (b <= a) return;
      figure.fill(1);
      stay(a, b, (stretch, share, seconds) => {
        figure[stretch - start]! *= 1 - share * (1 - Math.exp(-perPage * seconds));
      });
      for (let cell = from; cell < to; cell += 1) untouched[cell]! *= figure[cells.stretch[cell]! - start]!;
    },
    access: ({ from: a, to: b }, rates) => {
      const add = (stretch: number, often: number): void =>
        rates.addEvenly(cells.from[stretch]!, cells.from[stretch + 1]!, perPage * often);
      if (moveAt(b) === moveAt(a)) {
        for (const [low, high] of rangesAt(moveAt(a))) {
          const last = stretchAt(cells, region.first + high - 1);
          for (let stretch = stretchAt(cells, region.first + low); stretch <= last; stretch += 1)
            add(stretch, shareOf(stretch, low, high));
        }
        return;
      }
      figure.fill(0);
      stay(a, b, (stretch, share, seconds) => {
        figure[stretch - start]! += (share * seconds) / (b - a);
      });
      for (let stretch = start; stretch < end; stretch += 1)
        if (figure[stretch - start]! > 0) add(stretch, figure[stretch - start]!);
    },
    walks: NOTHING,
    nextChange: (t) => (moveAt(t) + 1) * everySeconds,
    turn: NO_TURN,
  };
}
