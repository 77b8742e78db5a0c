/** The daemon on the host that a guest leaves: starts migrations and remembers them. */

import { randomUUID } from 'node:crypto';
import type { SourceAgentOptions } from '@vmferry/agent-core/config';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import {
  forgetOld,
  inOrder,
  type MigrationSummary,
  type Operations,
  type RunningMigration,
} from '@vmferry/agent-core/operations';
import { MigrationError } from '@vmferry/engine/errors';
import type { MigrateRequest } from '@vmferry/engine/options';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { rehearsePreflight } from '@vmferry/hypervisor/libvirt/preflight/rehearse';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import { lookAtGuest, type SourceGuestFactory, sourceGuests, takeBackGuest } from './guests.ts';
import { settleLeftovers } from './leftovers.ts';
import { type MigrationLimits, type MigrationOptions, SourceMigration } from './migration.ts';
import { Resumption } from './resumption.ts';

/** What an agent is put together from; each part has its default. */
export interface SourceAgentParts extends MigrationLimits {
  readonly guests?: SourceGuestFactory;
  /** The simulated guests of this host; without it there are none. */
  readonly simulation?: SimulationHost;
}

export class SourceAgent implements Operations {
  readonly role = 'source';
  readonly #options: SourceAgentOptions;
  readonly #parts: SourceAgentParts;
  readonly #guests: SourceGuestFactory;
  readonly #migrations = new Map<string, SourceMigration | Resumption>();

  constructor(options: SourceAgentOptions, parts: SourceAgentParts = {}) {
    this.#options = options;
    this.#parts = parts;
    this.#guests = parts.guests ?? sourceGuests(parts.simulation ?? new SimulationHost([]), options);
  }

  migrate(request: MigrateRequest): RunningMigration {
    const busy = [...this.#migrations.values()].find(
      ({ summary }) => summary.guest === request.guest && summary.outcome === undefined,
    );
    if (busy) {
      throw new MigrationError(`${request.guest} is being migrated already (${busy.summary.id})`, {
        code: 'E_GUEST_BUSY',
        side: 'source',
        phase: 'preflight',
        guestRunsOn: 'source',
        remedy: 'wait for it to end, or cancel it',
      });
    }
    const id = randomUUID();
    const options: MigrationOptions = {
      id,
      request,
      agent: this.#options,
      guests: this.#guests,
      limits: this.#parts,
    };
    const migration = request.resume ? new Resumption(options) : new SourceMigration(options);
    this.#migrations.set(id, migration);
    forgetOld(this.#migrations);
    return migration;
  }

  list(): readonly MigrationSummary[] {
    return inOrder([...this.#migrations.values()].map((migration) => migration.summary));
  }

  find(id: string): RunningMigration | undefined {
    return this.#migrations.get(id);
  }

  /**
   * Settles what an agent before this one left, where that can be told; of one guest, or of all. Before the first
   * migration.
   */
  async settle(guest?: string): Promise<void> {
    const { stateDir, log } = this.#options;
    await settleLeftovers({
      stateDir,
      log,
      takeBack: (uri, session) => takeBackGuest(uri, session, this.#options),
      look: (uri, session) => lookAtGuest(uri, session, this.#options),
      ...(guest === undefined ? {} : { guest }),
    });
  }

  /** Asks the host's libvirt, where there is one, for what the first preflight would wait for. */
  async rehearse(): Promise<void> {
    const { libvirt } = this.#options;
    await rehearsePreflight(libvirtOptions(libvirt), libvirtPolicy(libvirt));
  }

  /** Cancels what can be cancelled and waits for its end. */
  async close(): Promise<void> {
    const running = [...this.#migrations.values()].filter(({ summary }) => summary.outcome === undefined);
    for (const migration of running) migration.cancel();
    await Promise.all(running.map((migration) => migration.done));
    await Promise.all([...this.#migrations.values()].map((migration) => migration.disconnect()));
  }
}
