/**
 * Pages that were asked from the hypervisor and have not come.
 *
 * A hypervisor answers a lane's requests in the order in which they were made and passes over pages that it
 * has sent already, without a word. So an answer to a later request says that nothing more comes for the
 * earlier ones, and they are written off. Answers on the express lane may overtake bulk ones: they write
 * off nothing on the bulk lane; bulk answers write off whatever was asked before them.
 */
import type { Lane } from '../guest.ts';

interface Request {
  readonly lane: Lane;
  readonly block: number;
  readonly first: number;
  readonly end: number;
  left: number;
}

/** First in, first out; its length is bounded by what the caller lets be in flight. */
export class Outstanding {
  #requests: Request[] = [];
  #bulk = 0;
  #express = 0;

  get pages(): number {
    return this.#bulk + this.#express;
  }

  get bulkPages(): number {
    return this.#bulk;
  }

  /** `missing` pages of `first` to `end` (exclusive) are expected. */
  asked(lane: Lane, block: number, first: number, end: number, missing: number): void {
    this.#requests.push({ lane, block, first, end, left: missing });
    this.#add(lane, missing);
  }

  arrived(block: number, page: number): void {
    const index = this.#requests.findIndex(
      (request) => request.block === block && page >= request.first && page < request.end,
    );
    if (index === -1) return;
    const request = this.#requests[index]!;
    request.left -= 1;
    this.#add(request.lane, -1);
    if (index === 0) {
      if (request.left === 0) this.#requests.shift();
      return;
    }
    this.#requests = this.#requests.filter((other, at) => {
      const over = at < index && (request.lane === 'bulk' || other.lane === 'express');
      if (over) this.#add(other.lane, -other.left);
      return !over && other.left > 0;
    });
  }

  forget(): void {
    this.#requests = [];
    this.#bulk = 0;
    this.#express = 0;
  }

  #add(lane: Lane, pages: number): void {
    if (lane === 'bulk') this.#bulk += pages;
    else this.#express += pages;
  }
}
