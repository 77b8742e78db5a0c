/** Disks are copied before the guest's memory, and after it begins the policy's own looks do not tell of them. */
import type { SourceGuest, SourceProgress } from '@vmferry/engine/guest';

const LOOK_MS = 500;

export class DiskWatch {
  readonly #timer: NodeJS.Timeout;
  #looking = false;
  #copied: SourceProgress['disks'];

  constructor(guest: Pick<SourceGuest, 'progress'>, onSeen: () => void) {
    this.#timer = setInterval(() => void this.#look(guest, onSeen), LOOK_MS);
  }

  /** As seen last. */
  get copied(): SourceProgress['disks'] {
    return this.#copied;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #look(guest: Pick<SourceGuest, 'progress'>, onSeen: () => void): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const { disks } = await guest.progress();
      if (!disks) return;
      this.#copied = disks;
      onSeen();
    } catch {
      // A guest that cannot be asked is told by its driver.
    } finally {
      this.#looking = false;
    }
  }
}
