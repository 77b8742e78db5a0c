/**
 * Where the guest's NICs are on this host, and the announcement that is prepared for them. Its rounds go on for some two
 * seconds after the first; nobody waits for them but an agent that is told to end.
 */
import type { Logger } from '@vmferry/agent-core/log';
import type { DestGuest, Nic } from '@vmferry/engine/guest';
import { type AnnounceResult, Announcing, NOT_ANNOUNCED } from './announcing.ts';

export class Whereabouts {
  readonly #log: Logger;
  #announcing: Announcing | undefined;
  #begun: Promise<void> = Promise.resolve();
  #over: Promise<void> = Promise.resolve();
  #announces = false;
  /** As the source described them. */
  #nics: readonly Nic[] | undefined;
  #ips: readonly string[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Nothing more is announced. Never rejects. */
  get over(): Promise<void> {
    return this.#over;
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
    const announcing = this.#announcing;
    if (!announcing || this.#announces) return;
    this.#announces = true;
    this.#begun = announcing.begin();
    this.#over = this.#begun.then(async () => {
      const { frames, interfaces, notes } = await announcing.end();
      this.#log.info({ frames, interfaces, notes }, 'announced');
    });
  }

  /** What was announced until now, at least the first round. Never rejects. */
  async announced(): Promise<AnnounceResult> {
    await this.#begun;
    return this.#announces && this.#announcing ? this.#announcing.soFar : NOT_ANNOUNCED;
  }

  /** Nothing is going to be announced. */
  close(): void {
    this.#announcing?.close();
  }
}
