/**
 * May this guest come in? Asked until the answer is yes, and before that the link may be probed.
 *
 *     probe* ──▶ open ──▶ rejected, and may be opened again
 *                  ├────▶ accepted
 *                  └────▶ accepted: a post-copy that came to a halt is to be finished
 */
import type { Logger } from '@vmferry/agent-core/log';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import { parseDescription } from '@vmferry/engine/description';
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest, DestPlan, GuestDescription } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import type { ControlChannel } from '@vmferry/wire/control';
import { type ControlMessage, MAX_SENTENCE } from '@vmferry/wire/messages';
import type { Account } from './account.ts';
import { damageOf } from './failures.ts';
import type { DestGuestFactory } from './guests.ts';
import type { Whereabouts } from './whereabouts.ts';

export interface AdmissionOptions {
  readonly control: ControlChannel;
  readonly guests: DestGuestFactory;
  readonly bufferBytes: number;
  readonly account: Account;
  readonly whereabouts: Whereabouts;
  readonly log: Logger;
}

/** A guest that may come in. */
export interface Admitted {
  readonly guest: DestGuest;
  readonly plan: DestPlan;
  readonly dataStreams: number;
  /** It came to a halt before and is to be finished, without a switchover. */
  readonly rejoins: boolean;
}

export class Admission {
  readonly #options: AdmissionOptions;
  #guest: DestGuest | undefined;
  #admitted: Admitted | undefined;
  #probedBytes = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Also one that was not admitted. */
  get guest(): DestGuest | undefined {
    return this.#guest;
  }

  get admitted(): Admitted | undefined {
    return this.#admitted;
  }

  /** What a probe brings is thrown away. Only before a guest is named: a migration needs the link for itself. */
  probe({ bytes: sent, last }: ControlMessage<'probe'>): void {
    if (this.#admitted) throw new PayloadError('the link cannot be probed during a migration');
    this.#probedBytes += sent.length;
    if (!last) return;
    this.#options.control.send({ type: 'probed', bytes: this.#probedBytes });
    this.#probedBytes = 0;
  }

  /** Rejects with what is no `GuestError`. */
  async open(message: ControlMessage<'open'>): Promise<void> {
    const { account, guests } = this.#options;
    account.enter('preflight');
    account.named(message.destGuest);
    try {
      this.#guest ??= await guests(message.destGuest);
      const description = parseDescription(message.guest);
      if (message.request['resume'] === true) await this.#openAgain(this.#guest, message, description);
      else await this.#openFirst(this.#guest, message, description);
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      this.#reject([error]);
    }
  }

  async #openFirst(
    guest: DestGuest,
    message: ControlMessage<'open'>,
    description: GuestDescription,
  ): Promise<void> {
    const plan = this.#planOf(message);
    const answer = await guest.prepare(description, plan);
    if (!answer.ok) {
      this.#reject(answer.reasons, answer.notes);
      return;
    }
    this.#admitted = { guest, plan, dataStreams: message.streams, rejoins: false };
    this.#options.whereabouts.expect(description.nics, answer.nics, announceIps(message.request));
    this.#options.control.send({
      type: 'accepted',
      hypervisorVersion: answer.hypervisorVersion,
      nics: answer.nics.map((nic) => ({ ...nic, addresses: [...nic.addresses] })),
      notes: bounded(answer.notes),
    });
  }

  /** A post-copy that came to a halt is to be finished. */
  async #openAgain(
    guest: DestGuest,
    message: ControlMessage<'open'>,
    description: GuestDescription,
  ): Promise<void> {
    const rejoined = await guest.rejoin?.(description);
    if (!rejoined) {
      const what = `${message.destGuest} cannot be resumed`;
      throw new GuestError('E_UNSUPPORTED', what, 'see the README on what to do');
    }
    if (!rejoined.ok) {
      this.#reject(rejoined.reasons);
      return;
    }
    this.#admitted = { guest, plan: this.#planOf(message), dataStreams: message.streams, rejoins: true };
    const { hypervisorVersion } = rejoined;
    this.#options.control.send({ type: 'accepted', hypervisorVersion, nics: [], notes: [] });
  }

  #planOf({ plan }: ControlMessage<'open'>): DestPlan {
    return { postcopy: plan.postcopy, bufferBytes: bytes(this.#options.bufferBytes) };
  }

  #reject(reasons: readonly GuestError[], notes?: readonly string[]): void {
    this.#options.log.info(
      { reasons: reasons.map(({ code, message }) => ({ code, message })) },
      'migration rejected',
    );
    this.#options.control.send({
      type: 'rejected',
      reasons: reasons.slice(0, 64).map(damageOf),
      notes: bounded(notes),
    });
  }
}

function bounded(notes: readonly string[] = []): string[] {
  return notes.slice(0, 64).map((note) => note.slice(0, MAX_SENTENCE));
}

function announceIps(request: ControlMessage<'open'>['request']): string[] {
  const ips = request['announceIps'];
  return Array.isArray(ips) ? ips.filter((ip): ip is string => typeof ip === 'string') : [];
}
