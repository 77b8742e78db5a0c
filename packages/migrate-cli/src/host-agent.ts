/** One agent for both roles of a host: guests that came in can leave again. */
import { inOrder, type MigrationSummary, type RunningMigration } from '@vmferry/agent-core/operations';
import type { MigrateRequest } from '@vmferry/engine/options';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import type { Peer } from '@vmferry/wire/listener';
import type { EmbeddedDest, EmbeddedSource } from './embedded.ts';

/** The two agents know nothing of each other: what they share is the host and its hypervisors. */
export class HostAgent implements EmbeddedDest {
  readonly role = 'host';
  readonly #source: EmbeddedSource;
  readonly #dest: EmbeddedDest;

  constructor(source: EmbeddedSource, dest: EmbeddedDest) {
    this.#source = source;
    this.#dest = dest;
  }

  migrate(request: MigrateRequest): RunningMigration {
    return this.#source.migrate(request);
  }

  list(): readonly MigrationSummary[] {
    return inOrder([...this.#source.list(), ...this.#dest.list()]);
  }

  find(id: string): RunningMigration | undefined {
    return this.#source.find(id) ?? this.#dest.find(id);
  }

  async settle(guest?: string): Promise<void> {
    await this.#dest.settle(guest);
    await this.#source.settle(guest);
  }

  /** Both have the same libvirt. */
  async rehearse(): Promise<void> {
    await this.#dest.rehearse?.();
  }

  acceptMigration(socket: FrameSocket, peer: Peer): void {
    this.#dest.acceptMigration(socket, peer);
  }

  abandon(): void {
    this.#dest.abandon();
  }

  /** Guests that are leaving and that are coming in are settled, as long as their peers are heard. */
  async close(): Promise<void> {
    await Promise.all([this.#source.close(), this.#dest.close()]);
  }
}
