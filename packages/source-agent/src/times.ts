/** When the guest stopped, was sent, was ready and ran: what its downtime and the total time are made of. */
import { machineNow } from '@vmferry/agent-core/machine';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { type ClockOffset, downtimeAcross } from '@vmferry/engine/clock/offset';
import type { ReportBuilder } from '@vmferry/engine/report/builder';
import { type Millis, millis } from '@vmferry/engine/units';

export class Times {
  /** Monotonic, as all here but what is called `atMs`, which is a wall clock's. */
  readonly began: Millis;
  readonly #builder: ReportBuilder;
  /** The destination's clock beside this host's; undefined before there is a destination. */
  readonly #clock: () => ClockOffset | undefined;
  #stoppedAtMs: Millis | undefined;
  #stopped: Millis | undefined;
  #lastPage: Millis | undefined;
  #ready: Millis | undefined;
  #commit: Millis | undefined;
  #completed: Millis | undefined;

  constructor(began: Millis, builder: ReportBuilder, clock: () => ClockOffset | undefined) {
    this.began = began;
    this.#builder = builder;
    this.#clock = clock;
  }

  get elapsedMs(): number {
    return machineNow() - this.began;
  }

  /** When the guest stopped, if it has. */
  get stopped(): Millis | undefined {
    return this.#stopped;
  }

  /** When all was over, or now. */
  get ended(): Millis {
    return this.#completed ?? machineNow();
  }

  stop(atMs: Millis): void {
    this.#stoppedAtMs = atMs;
    this.#stopped = machineNow();
    this.#lastPage = undefined;
    this.#builder.stopped();
  }

  /** Behind the last page comes the devices' state, which is opaque. */
  opaque(): void {
    if (this.#stopped !== undefined) this.#lastPage ??= machineNow();
  }

  ready(): void {
    this.#ready ??= machineNow();
  }

  commit(): void {
    this.#commit ??= machineNow();
  }

  /** `atMs` is the destination's. */
  running(atMs: Millis): void {
    const clock = this.#clock()?.estimate(millis(wallClockMs()));
    if (this.#stoppedAtMs !== undefined && clock) {
      this.#builder.downtime(downtimeAcross(this.#stoppedAtMs, atMs, clock));
    }
    const now = machineNow();
    this.#completed = now;
    const [stopped, ready, commit] = [this.#stopped, this.#ready, this.#commit];
    if (stopped === undefined || ready === undefined || commit === undefined) return;
    const lastPage = this.#lastPage ?? ready;
    this.#builder.downtimePart('finalPagesMs', millis(lastPage - stopped));
    this.#builder.downtimePart('deviceStateMs', millis(ready - lastPage));
    this.#builder.downtimePart('commitMs', millis(commit - ready));
    this.#builder.downtimePart('resumeMs', millis(now - commit));
  }

  /** No page is missing since `atMs`, the destination's. The announcements that it went on with do not count. */
  complete(atMs: Millis): void {
    const now = wallClockMs();
    const offsetMs = this.#clock()?.estimate(millis(now))?.offsetMs;
    const agoMs = offsetMs === undefined ? 0 : Math.max(0, now - (atMs - offsetMs));
    this.#completed = millis(Math.max(this.#completed ?? 0, machineNow() - agoMs));
  }
}
