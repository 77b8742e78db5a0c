/** Where the guest's NICs are on this host, and the announcement that is prepared for them. */
import type { Logger } from '@vmferry/agent-core/log';
import type { DestGuest, Nic } from '@vmferry/engine/guest';
import { type AnnounceResult, Announcing } from './announcing.ts';

export class Whereabouts {
  readonly #log: Logger;
  #announcing: Announcing | undefined;
  #announced: Promise<AnnounceResult> = Promise.resolve({ frames: 0, interfaces: [], notes: [] });
  /** As the source described them. */
  #nics: readonly Nic[] | undefined;
  #ips: readonly string[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  /** What was announced, when that is over. Never rejects. */
  get announced(): Promise<AnnounceResult> {
    return this.#announced;
  }

  /** `nics` as the source described them, `places` as they will be here, `ips` as the operator named them. */
  expect(nics: readonly Nic[], places: readonly Nic[], ips: readonly string[]): void {
    this.#nics = nics;
    this.#ips = ips;
    this.#announcing ??= new Announcing({ nics, places, ips });
  }

  /** Where the taps are made with the guest, its announcement can be prepared only now. */
  async find(guest: DestGuest): Promise<void> {
    if (!guest.places || !this.#nics) return;
    try {
      const places = await guest.places();
      this.#announcing?.close();
      this.#announcing = new Announcing({ nics: this.#nics, places, ips: this.#ips });
    } catch (error) {
      // An announcement is best effort.
      this.#log.warn({ err: error }, 'interfaces');
    }
  }

  announce(): void {
    if (this.#announcing) this.#announced = this.#announcing.announce();
  }

  /** Nothing is going to be announced. */
  close(): void {
    this.#announcing?.close();
  }
}
