/** What is to be done once all of the guest is here: it is examined, and its hypervisor has its settings back. Each once. */
import type { Logger } from '@vmferry/agent-core/log';
import type { DestGuest, Examination } from '@vmferry/engine/guest';
import { unexamined } from './failures.ts';

export class Aftermath {
  readonly #guest: Pick<DestGuest, 'examine' | 'settle'>;
  readonly #log: Logger;
  #examined: Promise<Examination> | undefined;
  #settled: Promise<void> | undefined;

  constructor(guest: Pick<DestGuest, 'examine' | 'settle'>, log: Logger) {
    this.#guest = guest;
    this.#log = log;
  }

  /** An examination that cannot be made has not found the guest sound. */
  examine(): Promise<Examination> {
    this.#examined ??= this.#guest
      .examine()
      .catch((error: unknown): Examination => ({ found: 'damage', error: unexamined(error) }));
    return this.#examined;
  }

  /** Never rejects. */
  settle(): Promise<void> {
    this.#settled ??= this.#guest
      .settle()
      .catch((error: unknown) => this.#log.warn({ err: error }, 'settings'));
    return this.#settled;
  }
}
