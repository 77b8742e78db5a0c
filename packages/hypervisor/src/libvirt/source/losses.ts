/**
 * What the end of a connection means for the migration that is under way. libvirt itself would wait for ever, or say why
 * only when the destination's domain has ended, which would be taken for the reason.
 *
 *     libvirt's calls: travel ── good answer held back ──▶ finished there ── libvirt hangs up ──▶ it has its guest back
 *                        └── the tunnel ends before libvirt has answered ──▶ the link is lost
 *     disks:           copied ── memory's turn ──▶ may end
 *                        └── the connection ends, or QEMU gives the copy up ──▶ the migration fails
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestError } from '@vmferry/engine/errors';
import type { CallingRpc } from '../rpc/relay.ts';
import type { MigrateCall } from './call.ts';
import { callsLost, diskFailed, diskLost, hungUp } from './faults.ts';

/** From the break of libvirt's connection to what else there is to know of it. */
const TOLD_MS = 1000;
/** From the end of a disk's connection to the news of the destination's QEMU, should it be that which has ended. */
const DISK_TOLD_MS = 200;

export class Losses {
  /** The destination's libvirt has finished well, and this side's has not been told yet. */
  readonly finishedThere: Promise<void>;
  #resolveFinishedThere: () => void = () => {};
  readonly #call: Pick<MigrateCall, 'answer' | 'ended' | 'givenUp' | 'explained'>;
  readonly #tell: (error: GuestError) => void;
  #memoryBegan = false;
  #diskClosed = false;

  /** @param tell why the migration cannot go on */
  constructor(
    call: Pick<MigrateCall, 'answer' | 'ended' | 'givenUp' | 'explained'>,
    tell: (error: GuestError) => void,
  ) {
    this.#call = call;
    this.#tell = tell;
    this.finishedThere = new Promise((resolve) => {
      this.#resolveFinishedThere = resolve;
    });
  }

  /** libvirt's connection is kept by the relay, which answers its keepalive. */
  async watchCalls(calls: CallingRpc): Promise<void> {
    const first = await Promise.race([
      calls.ended.then(() => 'ended' as const),
      calls.held.then(() => 'held' as const),
      calls.detached.then(() => 'detached' as const),
    ]);
    if (first === 'held') {
      this.#resolveFinishedThere();
      await calls.ended;
      if (calls.holds && !this.#call.givenUp) this.#tell(hungUp());
    }
    if (first !== 'detached') return;
    this.#call.explained();
    // Whoever knows more of why it broke has told it by then.
    await Promise.race([this.#call.answer, sleep(TOLD_MS, undefined, { ref: false })]);
    if (!this.#call.ended && !this.#call.givenUp) this.#tell(callsLost());
  }

  /** Before the memory's turn no disk is done. */
  memoryBegins(): void {
    this.#memoryBegan = true;
  }

  async diskClosed(): Promise<void> {
    this.#diskClosed = true;
    if (!this.#memoryBegan) this.#call.explained();
    await Promise.race([this.#call.answer, sleep(DISK_TOLD_MS, undefined, { ref: false })]);
    if (!this.#memoryBegan && !this.#call.ended && !this.#call.givenUp) this.#tell(diskLost());
  }

  /** @param error of QEMU's, where it gave the copy up */
  copyEnded(error: unknown): void {
    if (typeof error === 'string') this.#call.explained();
    if (typeof error !== 'string' || this.#diskClosed || this.#call.givenUp) return;
    this.#tell(diskFailed(error));
  }
}
