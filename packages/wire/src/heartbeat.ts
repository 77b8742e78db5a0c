/** Whether a link's peer is alive: it is asked now and then, and taken for gone when nothing was heard for too long. */
import type { Clock } from './clock.ts';
import type { FrameSocket } from './frame-socket.ts';

export interface HeartbeatOptions {
  readonly intervalMs: number;
  /** The peer is taken for gone when nothing was heard for so long. */
  readonly timeoutMs: number;
}

const DEFAULT: HeartbeatOptions = { intervalMs: 5000, timeoutMs: 15_000 };

export class Heartbeat {
  readonly #socket: Pick<FrameSocket, 'ping' | 'stalled'>;
  readonly #clock: Clock;
  readonly #options: HeartbeatOptions;
  readonly #onSilence: (silentMs: number) => void;
  #heardAt: number;
  #stop: () => void = () => {};

  /** Beats from now on, until it is stopped or `onSilence` is called. */
  constructor(
    socket: Pick<FrameSocket, 'ping' | 'stalled'>,
    clock: Clock,
    options: HeartbeatOptions | undefined,
    onSilence: (silentMs: number) => void,
  ) {
    this.#socket = socket;
    this.#clock = clock;
    this.#options = options ?? DEFAULT;
    this.#onSilence = onSilence;
    this.#heardAt = clock.now();
    this.#beat();
  }

  hear(): void {
    this.#heardAt = this.#clock.now();
  }

  stop(): void {
    this.#stop();
  }

  #beat(): void {
    const { intervalMs, timeoutMs } = this.#options;
    const due = this.#clock.now() + intervalMs;
    this.#stop = this.#clock.after(intervalMs, () => {
      const now = this.#clock.now();
      // When nothing was read here, what the peer sent meanwhile has yet to be.
      if (this.#socket.stalled === true) this.#heardAt = now;
      else if (now - due > intervalMs) this.#heardAt = Math.max(this.#heardAt, now - timeoutMs + intervalMs);
      const silentMs = now - this.#heardAt;
      if (silentMs >= timeoutMs) {
        this.#onSilence(silentMs);
        return;
      }
      this.#socket.ping();
      this.#beat();
    });
  }
}
