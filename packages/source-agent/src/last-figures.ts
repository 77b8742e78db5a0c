/**
 * The destination's own figures, which come last: when the guest is announced and was examined where its
 * driver can do that.
 */
import type { ControlMessage } from '@vmferry/wire/messages';

/** After the guest runs. */
const ARRIVE_MS = 10_000;
/** The same where the destination said that it examines the guest: some thousand million accesses. */
export const EXAMINED_MS = 1_800_000;

type Figures = ControlMessage<'complete'>;

export class LastFigures {
  readonly #limitMs: number;
  readonly #arrived: Promise<Figures | undefined>;
  #resolve: (figures: Figures | undefined) => void = () => {};
  #examines = false;

  /** `limitMs`: how long those of a destination that examines nothing are waited for. */
  constructor(limitMs = ARRIVE_MS) {
    this.#limitMs = limitMs;
    this.#arrived = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** The destination examines the guest before it gives them. */
  get examines(): boolean {
    return this.#examines;
  }

  /** The destination runs the guest, and has said whether it examines it. */
  expect(examines: boolean): void {
    this.#examines = examines;
  }

  arrived(figures: Figures): void {
    this.#resolve(figures);
  }

  /** Undefined where they come too late, or the link has `closed` before. */
  async wait(closed: Promise<unknown>): Promise<Figures | undefined> {
    const timer = setTimeout(() => this.#resolve(undefined), this.#examines ? EXAMINED_MS : this.#limitMs);
    void closed.then(() => this.#resolve(undefined));
    const figures = await this.#arrived;
    clearTimeout(timer);
    return figures;
  }
}
