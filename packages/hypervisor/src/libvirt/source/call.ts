/**
 * The call by which libvirt migrates, which lasts as long as the migration.
 *
 *     idle ── make ──▶ under way ── libvirt answers ──▶ ended
 *      └─── giveUp ──────┴──▶ given up: is not made any more, and what is under way ends by its roll-back
 *
 * A post-copy that is finished is called for again, once for each try: `answer` is then the last one's.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { MigrateOptions } from '@vmferry/native/libvirt/domain';
import { type DomainEvents, type MigrationEnding, migrationEnding } from '../domain-events.ts';
import { asGuestError } from '../errors.ts';
import type { Rendezvous } from '../rendezvous.ts';
import type { SourceDomain } from './domain.ts';

export class MigrateCall {
  readonly #domain: SourceDomain;
  /** libvirt has been asked to migrate. */
  readonly begun: Promise<void>;
  #resolveBegun: () => void = () => {};
  #answer: Promise<unknown> | undefined;
  #ended = false;
  #givenUp = false;
  #cancelled = false;
  /** From then on libvirt gives it up for this side, or for what was lost. On the host's clock. */
  #accountedForMs = Number.POSITIVE_INFINITY;
  #qemuEnded: Promise<MigrationEnding> | undefined;

  constructor(domain: SourceDomain) {
    this.#domain = domain;
    this.begun = new Promise((resolve) => {
      this.#resolveBegun = resolve;
    });
  }

  /** libvirt's answer: undefined once it has gone well, or why not. Never rejects; undefined when nothing was called for. */
  get answer(): Promise<unknown> | undefined {
    return this.#answer;
  }

  get ended(): boolean {
    return this.#ended;
  }

  get givenUp(): boolean {
    return this.#givenUp;
  }

  /** Nothing begins any more. */
  giveUp(): void {
    this.#givenUp = true;
    this.explained();
  }

  /** Something was lost, at which libvirt gives it up by itself. */
  explained(): void {
    this.#accountedForMs = Math.min(this.#accountedForMs, Date.now());
  }

  /**
   * QEMU was told to give it up, at that time of its host: the news may come after that of what followed from it.
   */
  cancelled(atMs: number): void {
    this.#cancelled ||= atMs < this.#accountedForMs;
  }

  /**
   * Whether it was aborted by another client of libvirt's, as far as its answer has come. libvirt's own word for it may be
   * that of the destination's end, which follows.
   */
  async abortedByOthers(): Promise<boolean> {
    return this.#cancelled && this.#ended && (await this.#answer) !== undefined;
  }

  /** From here on how QEMU's part of it ends is heard. */
  listen(events: DomainEvents): void {
    this.#qemuEnded = events.next(migrationEnding);
  }

  /** @returns libvirt's answer, as in `answer` */
  make(rendezvous: Rendezvous, options: () => Promise<MigrateOptions>): Promise<unknown> {
    const uri = `qemu+unix:///system?socket=${rendezvous.there('rpc')}`;
    const answer = options()
      .then((given) => this.#domain.handle.migrateToUri(uri, given))
      .then(
        () => undefined,
        (error: unknown) => error,
      )
      .finally(() => {
        this.#ended = true;
      });
    this.#answer = answer;
    this.#resolveBegun();
    return answer;
  }

  /** Rejects with why libvirt has given the migration up, if it does. */
  async failure(): Promise<never> {
    const error = await this.#answer;
    throw error === undefined
      ? new GuestError('E_GUEST_FAILED', 'libvirt ended the migration early', "see libvirt's log")
      : asGuestError(error);
  }

  /** QEMU has closed its end: is all of the guest sent? libvirt's own answer comes only when the guest has moved. */
  async completed(postcopy: () => boolean): Promise<void> {
    const ending = await Promise.race([this.#qemuEnded, this.#answer?.then(() => undefined)]);
    if (ending === 'completed') return;
    // Without libvirtd nobody says how QEMU ended. In post-copy the destination does, which alone decides.
    if (this.#domain.lost && postcopy()) return;
    // What libvirt has to say of it comes with the end of its job. Once that has gone well QEMU is ended, and its own word
    // may not come any more.
    const error = await this.#answer;
    if (error === undefined && this.#ended) return;
    throw asGuestError(
      error ?? new GuestError('E_GUEST_FAILED', 'QEMU gave the migration up', "see QEMU's log on the source"),
    );
  }
}
