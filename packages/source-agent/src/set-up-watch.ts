/**
 * Looks at what comes before the guest's memory. Of disks it tells on after that has begun: the policy's own looks do not
 * tell of them.
 */
import { machineNow } from '@vmferry/agent-core/machine';
import type { SourceGuest, SourceProgress } from '@vmferry/engine/guest';
import type { Failure } from '@vmferry/engine/switchover/protocol';
import type { Millis } from '@vmferry/engine/units';
import { SetUp, type SetUpLimits } from './set-up.ts';

const LOOK_MS = 500;

export interface SetUpWatchOptions {
  readonly guest: Pick<SourceGuest, 'progress'>;
  readonly limits: SetUpLimits;
  /** Since the migration began. */
  readonly elapsedMs: () => number;
  readonly onSeen: () => void;
  /** For the operator. */
  readonly tell: (why: string) => void;
  /** It is to be given up; told again until it is. */
  readonly onFailure: (failure: Failure) => void;
}

export class SetUpWatch {
  readonly #options: SetUpWatchOptions;
  readonly #setUp: SetUp;
  readonly #timer: NodeJS.Timeout;
  /** What is not answered yet. */
  #askedAt: Millis | undefined;
  #copied: SourceProgress['disks'];
  #memoryBegan = false;

  constructor(options: SetUpWatchOptions) {
    this.#options = options;
    this.#setUp = new SetUp(options.limits);
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** As seen last. */
  get copied(): SourceProgress['disks'] {
    return this.#copied;
  }

  /** From here on others judge how it goes. */
  memoryBegins(): void {
    this.#memoryBegan = true;
    if (!this.#options.limits.copies) this.stop();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = machineNow();
    void this.#ask(now);
    if (this.#memoryBegan) return;
    const { elapsedMs, tell, onFailure } = this.#options;
    const unansweredMs = now - (this.#askedAt ?? now);
    const verdict = this.#setUp.look({ disks: this.#copied, elapsedMs: elapsedMs(), unansweredMs }, now);
    if (verdict.do === 'tell') tell(verdict.why);
    if (verdict.do === 'give-up') onFailure(verdict.failure);
  }

  async #ask(now: Millis): Promise<void> {
    if (this.#askedAt !== undefined) return;
    this.#askedAt = now;
    try {
      const { disks } = await this.#options.guest.progress();
      if (!disks) return;
      this.#copied = disks;
      this.#options.onSeen();
    } catch {
      // A guest that cannot be asked is told by its driver.
    } finally {
      this.#askedAt = undefined;
    }
  }
}
