/**
 * What a hypervisor has sent of a round and the link has not carried yet, oldest first. Where one part of memory packs
 * to nothing and the next not at all, it matters which of them that is: the hypervisor gets on as fast as what it sent
 * some time ago goes over, and what stands before the guest's state is what it sent last.
 */
import { PAGE_BYTES } from '@vmferry/engine/units';
import { added, emptyLoad, type Load, scaled } from './content.ts';

export class OnItsWay {
  #loads: Load[] = [];
  #bytes = 0;

  /** Content bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  get empty(): boolean {
    return this.#loads.length === 0;
  }

  /** The oldest that has any content. */
  get oldest(): Load | undefined {
    return this.#loads.find(({ rawPages }) => rawPages > 0);
  }

  /** All of it. */
  get load(): Load {
    return this.#loads.reduce(added, emptyLoad());
  }

  add(load: Load): void {
    this.#loads.push(load);
    this.#bytes += load.rawPages * PAGE_BYTES;
  }

  /** Takes the oldest out, at most so many content bytes, all of it alike; undefined when there is nothing. */
  take(contentBytes: number): Load | undefined {
    const [oldest, ...others] = this.#loads;
    if (oldest === undefined) return undefined;
    const bytes = oldest.rawPages * PAGE_BYTES;
    const share = bytes > contentBytes ? contentBytes / bytes : 1;
    this.#loads = share < 1 ? [scaled(oldest, 1 - share), ...others] : others;
    this.#bytes = this.#loads.length === 0 ? 0 : this.#bytes - bytes * share;
    return scaled(oldest, share);
  }

  /** Of the oldest so much has not gone after all, and of the newest so much was not sent yet. */
  correct(notGone: Load, notSent: Load): void {
    this.#loads = [notGone, ...this.#loads, scaled(notSent, -1)];
    this.#bytes += (notGone.rawPages - notSent.rawPages) * PAGE_BYTES;
  }

  takeAll(): Load {
    const { load } = this;
    this.#loads = [];
    this.#bytes = 0;
    return load;
  }
}
