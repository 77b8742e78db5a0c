/**
 * The domain is taken back, whatever came of its migration.
 *
 *     migrating ── given up: job aborted, calls cut off, stream read to its end ──▶ libvirt has its guest again
 *         │                                                      ── made to run where it ran ──▶ set back
 *         └── in post-copy ──▶ undone (`undo-postcopy`), or refused where QEMU cannot
 *
 * Domain states say what became of it, not return codes. Where libvirtd is lost it is begun anew with the next one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestError } from '@vmferry/engine/errors';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { answerOf, doneAnewIfLost } from '../answer.ts';
import type { ComesBack } from '../comes-back.ts';
import { asking } from '../errors.ts';
import type { LibvirtOptions } from '../options.ts';
import type { MigrateCall } from './call.ts';
import type { SourceConnections } from './connections.ts';
import type { Departure } from './departure.ts';
import type { SourceDomain } from './domain.ts';
import { aborted, gone, notSetBack, stands, stuckInPostcopy } from './faults.ts';
import { left } from './finishing.ts';
import { JOB_STAYS, undoHalted } from './undo-halted.ts';
import { callItRunning, comeBackByItself, undoPostcopy } from './undo-postcopy.ts';

/** From the word that the migration is given up to its end, before libvirt's calls are cut off. */
const ABORT_MS = 1000;
const SETTLE_TIMEOUT_MS = 60_000;

/** How the domain was, and what its QEMU can do. */
export interface Before {
  readonly wasRunning: boolean;
  readonly comesBack: ComesBack;
}

export class RollBack {
  readonly #domain: SourceDomain;
  readonly #connections: SourceConnections;
  readonly #call: MigrateCall;
  readonly #departure: Departure;
  readonly #options: LibvirtOptions;
  #remark: string | undefined;
  #abortedBy: GuestError | undefined;

  constructor(
    departure: Departure,
    {
      domain,
      connections,
      call,
      options,
    }: {
      readonly domain: SourceDomain;
      readonly connections: SourceConnections;
      readonly call: MigrateCall;
      readonly options: LibvirtOptions;
    },
  ) {
    this.#departure = departure;
    this.#domain = domain;
    this.#connections = connections;
    this.#call = call;
    this.#options = options;
  }

  /** How the domain differs from before all the same. */
  get remark(): string | undefined {
    return this.#remark;
  }

  /** Another client of libvirt's had the migration given up. */
  get abortedBy(): GuestError | undefined {
    return this.#abortedBy;
  }

  /** Any number of times. Only as long as the guest never ran on the destination. */
  async take(before: Before): Promise<void> {
    this.#call.giveUp();
    this.#departure.stream?.giveUp();
    await asking(async () => {
      // What is half begun cannot be ended: it would begin after its end.
      const begun = Promise.race([this.#departure.opening, this.#call.begun]);
      await answerOf('begun the migration, or refused to', begun);
      await doneAnewIfLost(
        () => this.#domain.connection,
        () => this.#take(before),
      );
    });
  }

  async #take(before: Before): Promise<void> {
    // Without libvirtd the end of its stream is what QEMU itself takes its guest back at; while it cannot write it may
    // hear nobody, and a libvirtd that is started again would wait for it.
    if (this.#domain.lost) this.#departure.stream?.cut();
    await this.#domain.reach();
    if (this.#call.answer) await this.#endMigration(before);
    await this.#makeRun(before);
    await this.#setBack();
  }

  /**
   * QEMU may be writing with the guest stopped: what it writes is read all the time. Then libvirt's calls are cut off,
   * in case that it waits for an answer that does not come.
   */
  async #endMigration(before: Before): Promise<void> {
    const domain = this.#domain.handle;
    if (await this.#isInPostcopy()) return await this.#endPostcopy(before);
    // libvirt waits for QEMU to end the copies, and QEMU for the answers of disks that may take nothing any more.
    setTimeout(() => this.#connections.cutDisks(), ABORT_MS).unref();
    const drained = this.#departure.stream?.drain({ finishes: false });
    await answerOf('aborted the migration', domain.abortJob()).catch((error: unknown) => {
      // Too late, or over: the domain's state tells.
      if (!isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID', 'VIR_ERR_NO_DOMAIN')) throw error;
    });
    // It had been asked for just before.
    if (await this.#isInPostcopy()) return await this.#endPostcopy(before);
    await Promise.race([this.#call.answer, sleep(ABORT_MS)]);
    this.#connections.hangUp();
    await Promise.race([this.#call.answer, sleep(SETTLE_TIMEOUT_MS)]);
    this.#departure.stream?.cut();
    await drained;
    this.#departure.takenBack();
    if (await this.#call.abortedByOthers()) this.#abortedBy = aborted();
  }

  async #endPostcopy({ wasRunning, comesBack }: Before): Promise<void> {
    const domain = this.#domain.handle;
    const { stream } = this.#departure;
    if (!stream || comesBack === 'never') throw stuckInPostcopy(domain.name);
    if (comesBack === 'by-itself') await comeBackByItself(domain, stream);
    else if ((await undoPostcopy(domain, { wasRunning, stream })) === 'halted') {
      if (!wasRunning) throw stuckInPostcopy(domain.name);
      await undoHalted(domain, this.#options);
      this.#remark = JOB_STAYS;
    }
    this.#connections.hangUp();
    await Promise.race([this.#call.answer, sleep(SETTLE_TIMEOUT_MS)]);
    this.#departure.takenBack();
  }

  async #isInPostcopy(): Promise<boolean> {
    if (this.#departure.stream?.postcopy) return true;
    const reason = (await this.#domain.stateOrGone())?.reason;
    return reason === 'post-copy' || reason === 'post-copy-failed';
  }

  /** libvirt has let the guest run again; makes sure of it. */
  async #makeRun({ wasRunning }: Before): Promise<void> {
    const state = await this.#domain.settledState();
    if (state === undefined || left(state)) throw gone('the domain ended on the source');
    if (state.state === 'running' && state.reason === 'post-copy') await callItRunning(this.#domain.handle);
    if (!wasRunning || state.state === 'running') return;
    if (state.state !== 'paused' || state.reason === 'post-copy-failed')
      throw stands(this.#domain.handle.name, state);
    await answerOf('let the domain run again', this.#domain.handle.resume());
    const again = await answerOf("told the domain's state", this.#domain.handle.state());
    if (again.state !== 'running') throw stands(this.#domain.handle.name, again);
  }

  /** The guest runs as before without it, too. */
  async #setBack(): Promise<void> {
    const { downtimeMs } = this.#departure;
    if (downtimeMs === undefined) return;
    try {
      await this.#departure.setMaxDowntime(downtimeMs);
    } catch (error) {
      this.#remark = notSetBack(this.#domain.handle.name, downtimeMs, error);
    }
  }
}
