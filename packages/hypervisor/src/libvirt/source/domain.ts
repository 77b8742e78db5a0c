/**
 * The domain that leaves, on this host's libvirtd. A libvirtd that was restarted has the domain still, for a connection
 * that is made anew: `reach`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { answerOf, letGo } from '../answer.ts';
import { ifThere } from '../if-there.ts';
import { reconnect } from '../reconnect.ts';
import { gone } from './faults.ts';

/** From a libvirtd's restart to its having settled what it left. */
const RESTARTED_MS = 10_000;
const SETTLE_POLL_MS = 200;

export class SourceDomain {
  readonly #uri: string;
  #connection: LibvirtConnection;
  #domain: Domain;

  constructor(connection: LibvirtConnection, domain: Domain, uri: string) {
    this.#connection = connection;
    this.#domain = domain;
    this.#uri = uri;
  }

  /** Another one after `reach`, as is `handle`. */
  get connection(): LibvirtConnection {
    return this.#connection;
  }

  get handle(): Domain {
    return this.#domain;
  }

  get lost(): boolean {
    return this.#connection.closed;
  }

  /**
   * The libvirtd that was there when this guest was opened may have been restarted.
   *
   * @throws GuestError E_GUEST_GONE from one that does not have the domain any more
   */
  async reach(): Promise<void> {
    if (!this.#connection.closed) return;
    const connection = await reconnect(this.#uri);
    void this.#connection.close().catch(() => {});
    this.#connection = connection;
    try {
      this.#domain = await connection.domainByUuid(this.#domain.uuid);
    } catch (error) {
      throw isLibvirtError(error, 'VIR_ERR_NO_DOMAIN') ? gone('the domain ended on the source') : error;
    }
  }

  /** Undefined once it is gone. */
  stateOrGone(): Promise<DomainState | undefined> {
    return answerOf(
      "told the domain's state",
      ifThere(() => this.#domain.state()),
    );
  }

  /** A libvirtd that was restarted gives the migration up by itself, in a while. */
  async settledState(): Promise<DomainState | undefined> {
    const deadline = performance.now() + RESTARTED_MS;
    for (;;) {
      const state = await this.stateOrGone();
      if (state?.reason !== 'migration' || performance.now() > deadline) return state;
      await sleep(SETTLE_POLL_MS);
    }
  }

  async close(): Promise<void> {
    await letGo(this.#connection.close());
  }
}
