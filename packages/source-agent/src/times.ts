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
  #ran: Millis | undefined;
  /** The destination's wall clock. */
  #ranAtMs: Millis | undefined;
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

  /** The destination runs the guest. */
  get ran(): boolean {
    return this.#ran !== undefined;
  }

  /** When all was over, or now. */
  get ended(): Millis {
    return this.#completed ?? machineNow();
  }

  /**
   * The guest stood still at `atMs`. That is heard of a little later, and in post-copy perhaps when the guest runs already:
   * while the background has no turn, nothing more of the stream is read, and the news stands in it.
   */
  stop(atMs: Millis): void {
    this.#stoppedAtMs = atMs;
    const agoMs = Math.max(0, wallClockMs() - atMs);
    this.#stopped = millis(machineNow() - agoMs);
    this.#lastPage = undefined;
    this.#builder.stopped();
    this.#tellDowntime();
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

  /** `atMs` is the destination's. `pagesFollow`: all is over only with `complete`. */
  running(atMs: Millis, { pagesFollow }: { readonly pagesFollow: boolean }): void {
    this.#ranAtMs = atMs;
    this.#ran = machineNow();
    if (!pagesFollow) this.#completed = this.#ran;
    this.#tellDowntime();
  }

  /** As soon as both ends of it are known. */
  #tellDowntime(): void {
    const [stopped, ready, commit, ran] = [this.#stopped, this.#ready, this.#commit, this.#ran];
    const clock = this.#clock()?.estimate(millis(wallClockMs()));
    if (this.#stoppedAtMs !== undefined && this.#ranAtMs !== undefined && clock) {
      this.#builder.downtime(downtimeAcross(this.#stoppedAtMs, this.#ranAtMs, clock));
    }
    if (stopped === undefined || ready === undefined || commit === undefined || ran === undefined) return;
    const lastPage = this.#lastPage ?? ready;
    this.#builder.downtimePart('finalPagesMs', millis(lastPage - stopped));
    this.#builder.downtimePart('deviceStateMs', millis(ready - lastPage));
    this.#builder.downtimePart('commitMs', millis(commit - ready));
    this.#builder.downtimePart('resumeMs', millis(ran - commit));
  }

  /** No page is missing since `atMs`, the destination's. What it did after that does not count. */
  complete(atMs: Millis): void {
    const now = wallClockMs();
    const offsetMs = this.#clock()?.estimate(millis(now))?.offsetMs;
    const agoMs = offsetMs === undefined ? 0 : Math.max(0, now - (atMs - offsetMs));
    this.#completed = millis(Math.max(this.#ran ?? 0, machineNow() - agoMs));
  }
}
