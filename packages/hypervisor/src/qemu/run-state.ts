/**
 * Whether a guest that leaves runs: somebody with a monitor of his own may stop it or let it go on meanwhile, or QEMU
 * stops it because its storage failed. It arrives as it stood when the migration stopped it.
 *
 *     STOP ──▶ whose? ── the pass of the stopped guest begins, or QEMU says "finish-migrate" ──▶ the migration's: it runs
 *                └───── QEMU says "paused", "io-error", … ──▶ somebody's: it stands, and so it arrives
 *                └───── QEMU says "shutdown", "guest-panicked", … ──▶ there is nothing left to move
 *
 * While QEMU sends the last pages it answers nobody, and what comes of the question is known only at their end.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { RunState } from '@vmferry/engine/guest';
import type { Millis } from '@vmferry/engine/units';
import type { QmpClient } from './qmp/client.ts';
import { statusReply, typed } from './qmp/schema.ts';

/** Run states that the migration itself brings a guest to that ran. */
const OWN = ['finish-migrate', 'postmigrate'];

/** Run states that `cont` does not leave, in words. */
const ENDED: Readonly<Record<string, string>> = {
  shutdown: 'the guest shut down',
  'guest-panicked': 'the guest panicked',
  'internal-error': "the guest stopped with an internal error of its QEMU's",
};

export interface RunStateListener {
  /** The migration has stopped the guest. `atMs`: QEMU's stamp. */
  stopped(atMs: Millis): void;
  /** Somebody else stopped the guest, or lets it go on. */
  changed(running: boolean): void;
  /** It has stopped in a way that it does not run on from. */
  ended(error: GuestError): void;
}

export class RunStateWatch {
  readonly #client: QmpClient;
  readonly #listener: RunStateListener;
  readonly #unsubscribe: readonly (() => void)[];
  #state: RunState = { running: true, word: 'running' };
  /** Counts the guest's stops and goes: an answer about an earlier one means nothing. */
  #changes = 0;
  /** A stop of which nobody was told yet. */
  #untold: Millis | undefined;
  /** What was asked about the last stop. Never rejects; gives what went wrong. */
  #asked: Promise<unknown> = Promise.resolve();

  constructor(client: QmpClient, listener: RunStateListener) {
    this.#client = client;
    this.#listener = listener;
    this.#unsubscribe = [
      client.on('STOP', ({ atMs }) => {
        this.#changes += 1;
        this.#untold = atMs;
        this.#asked = this.#ask(this.#changes).catch((error: unknown) => error);
      }),
      client.on('RESUME', () => {
        this.#changes += 1;
        this.#untold = undefined;
        this.#become({ running: true, word: 'running' });
      }),
    ];
  }

  /** The guest runs, or would if the migration had not stopped it. */
  get running(): boolean {
    return this.#state.running;
  }

  /** What was seen where nothing had happened yet. */
  found(running: boolean): void {
    this.#state = { running, word: running ? 'running' : 'paused' };
  }

  /** A pass over memory begins. */
  passBegan(): void {
    this.#tellStopped();
  }

  /**
   * How the guest stood when the migration stopped it; as long as it did not, how it stands.
   *
   * @throws QmpError
   */
  async settled(): Promise<RunState> {
    const failure = await this.#asked;
    if (failure !== undefined) throw failure;
    return this.#state;
  }

  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
  }

  async #ask(change: number): Promise<void> {
    const { running, status } = await typed(this.#client, 'query-status', statusReply, undefined, {
      // As long as the last pages take.
      timeoutMs: Number.POSITIVE_INFINITY,
    });
    if (change !== this.#changes || running) return;
    if (OWN.includes(status)) {
      this.#tellStopped();
      return;
    }
    this.#untold = undefined;
    this.#become({ running: false, word: status });
    if (isEnded(status)) this.#listener.ended(endedIn(status));
  }

  #tellStopped(): void {
    const atMs = this.#untold;
    if (atMs === undefined) return;
    this.#untold = undefined;
    this.#listener.stopped(atMs);
  }

  #become(state: RunState): void {
    const changes = state.running !== this.#state.running;
    this.#state = state;
    if (changes) this.#listener.changed(state.running);
  }
}

/** Whether a guest in that run state has come to its end: `cont` is refused. */
export function isEnded(status: string): boolean {
  return Object.hasOwn(ENDED, status);
}

/** What there is to say of a guest that ended on its way. */
export function endedIn(status: string): GuestError {
  return new GuestError(
    'E_GUEST_GONE',
    `${ENDED[status] ?? 'the guest ended'} on the source while it was moved, and its QEMU keeps it as it is ("${status}")`,
    'there is nothing to move: start it on either host, or reset it on the source and move it then',
  );
}
