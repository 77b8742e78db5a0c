/**
 * How far a migration is. While the policy looks it knows best. Then, with the guest stopped or gone ahead, it is told
 * from what the hypervisor says and what the destination has taken since: a hypervisor that sends its last pages
 * answers only afterwards.
 */
import type { SourceGuest } from '@vmferry/engine/guest';
import { type Delivered, LinkMeter } from '@vmferry/engine/policy/link-meter';
import type { ProgressSample } from '@vmferry/engine/policy/steering';
import { type Millis, PAGE_BYTES } from '@vmferry/engine/units';

/** Where the destination takes nothing there is nothing new to hear, and a hypervisor whose migration halts may not answer. */
const QUIET_MS = 2000;

/** `steered`: the policy looks. `decided`: it does not any more. `postcopy`: each page that is left goes once. */
export type Stage = 'steered' | 'decided' | 'postcopy';

export interface LiveProgressOptions {
  readonly guest: Pick<SourceGuest, 'progress'>;
  readonly memoryBytes: number;
  readonly delivered: () => Delivered;
  /** Content bytes that the hypervisor has handed over and the destination has not taken. */
  readonly held: () => number;
}

export class LiveProgress {
  readonly #options: LiveProgressOptions;
  readonly #link: LinkMeter;
  #sample: ProgressSample;
  /** What was left when it was last known, and what had been taken by then. */
  #known: { readonly leftBytes: number; readonly takenBytes: number };
  #asking = false;
  /** The hypervisor has said in post-copy what is left. */
  #countsDown = false;

  /** `now` and all later ones are stamps of one clock. */
  constructor(options: LiveProgressOptions, now: Millis) {
    this.#options = options;
    this.#link = new LinkMeter(now);
    this.#known = { leftBytes: options.memoryBytes, takenBytes: 0 };
    this.#sample = {
      round: 0,
      remainingBytes: options.memoryBytes,
      dirtyBytesPerSec: 0,
      bandwidthBytesPerSec: 0,
      expectedDowntimeMs: null,
    };
  }

  get sample(): ProgressSample {
    return this.#sample;
  }

  policySaw(sample: ProgressSample): void {
    this.#sample = sample;
    this.#known = { leftBytes: sample.remainingBytes, takenBytes: this.#takenBytes };
  }

  /** To be called now and then. */
  look(stage: Stage, now: Millis): void {
    this.#link.look(this.#options.delivered(), now);
    if (stage === 'steered') return;
    if (now - this.#link.takenAt < QUIET_MS) void this.#ask(stage);
    this.#sample = {
      ...this.#sample,
      remainingBytes: this.#leftBytes,
      bandwidthBytesPerSec: this.#link.bandwidth,
    };
  }

  async #ask(stage: Stage): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const { round, remainingBytes, dirtyBytesPerSec } = await this.#options.guest.progress();
      const said = remainingBytes + this.#options.held();
      // Pages that answered faults are left for a hypervisor that was not asked for them.
      const leftBytes = this.#countsDown ? Math.min(said, this.#leftBytes) : said;
      this.#known = { leftBytes, takenBytes: this.#takenBytes };
      this.#countsDown = stage === 'postcopy';
      this.#sample = { ...this.#sample, round, dirtyBytesPerSec };
    } catch {
      // A guest that cannot be asked is told by its driver.
    } finally {
      this.#asking = false;
    }
  }

  get #leftBytes(): number {
    const { leftBytes, takenBytes } = this.#known;
    return Math.max(0, leftBytes - (this.#takenBytes - takenBytes));
  }

  get #takenBytes(): number {
    const { contentBytes, zeroPages } = this.#options.delivered();
    return contentBytes + zeroPages * PAGE_BYTES;
  }
}
