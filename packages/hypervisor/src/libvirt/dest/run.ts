/**
 * The guest is let run here.
 *
 *     ready ── after pre-copy: the paused domain is resumed ──▶ running
 *           ── in post-copy: libvirt is let finish, and runs it ──▶ running
 *
 * A libvirtd that is lost meanwhile may have done it, and not have said so.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Millis, millis } from '@vmferry/engine/units';
import { answerOf, isLost } from '../answer.ts';
import type { DestConnections } from './connections.ts';
import type { DestDomain } from './domain.ts';
import type { Intake } from './intake.ts';

/** From the guest's running here to the source's libvirt having been told. */
const FINISH_MS = 30_000;

export class Run {
  readonly #domain: DestDomain;
  readonly #intake: Intake;
  readonly #connections: DestConnections;
  #promised = false;

  constructor(domain: DestDomain, intake: Intake, connections: DestConnections) {
    this.#domain = domain;
    this.#intake = intake;
    this.#connections = connections;
  }

  /** The source has been told that the guest may run here. */
  get promised(): boolean {
    return this.#promised;
  }

  promise(): void {
    this.#promised = true;
  }

  async run({ paused }: { readonly paused: boolean }): Promise<{ readonly atMs: Millis }> {
    this.promise();
    await this.#intake.images?.keep();
    if (this.#intake.finishes) return { atMs: paused ? now() : await this.#resume() };
    const finished = this.#connections.finish({ paused: false });
    finished.catch(() => {});
    // One that was paused is left paused: the good answer is all there is to see. After post-copy it comes last.
    if (paused) return { atMs: await finished.then(now) };
    const resumed = this.#intake.resumed!;
    const failed = finished.then(() => resumed);
    return { atMs: await Promise.race([resumed, failed, this.#intake.untilGone()]) };
  }

  /** The stamp is QEMU's. Of a libvirtd that was restarted no event comes. */
  async #resume(): Promise<Millis> {
    const { connection } = this.#domain;
    if (!connection.closed) {
      const lost = new Promise<void>((resolve) => connection.once('close', () => resolve()));
      try {
        await answerOf('let the domain run', (await this.#domain.handle()).resume());
        return await Promise.race([this.#intake.resumed!, lost.then(now)]);
      } catch (error) {
        if (!(await isLost(connection))) throw error;
      }
    }
    await this.#domain.reach();
    const domain = await this.#domain.handle();
    const { state } = await answerOf("told the domain's state", domain.state());
    if (state !== 'running') await answerOf('let the domain run', domain.resume());
    return now();
  }

  /** It is halted in the middle, and may run no further: the source's libvirt is told nothing. */
  halted(): void {
    this.#promised = false;
  }

  /** The source's libvirt waits for the answer, and hangs up itself. */
  async told(): Promise<void> {
    const { calls } = this.#connections;
    if (!this.#promised || !calls) return;
    await Promise.race([calls.ended, calls.detached, sleep(FINISH_MS, undefined, { ref: false })]);
  }
}

function now(): Millis {
  return millis(Date.now());
}
