/**
 * The migration that a QEMU was told to make, by its status.
 *
 *     setup ─▶ active ──────────▶ device ─────────────────────▶ completed
 *                │
 *                └─▶ postcopy-device ─▶ postcopy-active ──────▶ completed
 *
 *     from anywhere: failed, or cancelled
 *
 * Not every version has the two device states. QEMU 10.2 and newer are in "postcopy-device" until they have noticed that
 * the destination has loaded the state: if the stream breaks before, they run the guest again by themselves.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { LocalSocket } from '@vmferry/native/local-socket';
import { LET_GO, LET_GO_TIMEOUT_MS, RUNS_AGAIN, untilLetGo } from './lets-go.ts';
import type { MigrationListener } from './migration-socket.ts';
import { awaitMigration, isOver } from './migration-status.ts';
import type { OutgoingStream } from './outgoing-stream.ts';
import type { QmpClient } from './qmp/client.ts';
import type { QmpEvent } from './qmp/message.ts';
import { migrateReply, typed } from './qmp/schema.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const SETTLE_TIMEOUT_MS = 60_000;
const SEE_LOG = "see QEMU's log on the source";

/** Where nothing else is said, methods throw `QmpError` when the monitor fails. */
export class OutgoingMigration {
  readonly #client: QmpClient;
  /** As its last event said. */
  #status = '';
  #unsubscribe = () => {};

  constructor(client: QmpClient) {
    this.#client = client;
  }

  /**
   * Tells QEMU to migrate to the listener; resolves with its connection.
   *
   * @throws GuestError when QEMU does not come
   */
  async begin(listener: MigrationListener): Promise<LocalSocket> {
    this.#unsubscribe = this.#client.on('MIGRATION', (event) => {
      this.#status = statusIn(event);
    });
    await this.#client.execute('migrate', { uri: listener.uri });
    return await this.#accept(listener);
  }

  #accept(listener: MigrationListener): Promise<LocalSocket> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void =>
        reject(new GuestError('E_GUEST_FAILED', `QEMU did not begin to migrate: ${why}`, SEE_LOG));
      const timer = setTimeout(
        () => fail(`no connection within ${CONNECT_TIMEOUT_MS / 1000} s`),
        CONNECT_TIMEOUT_MS,
      );
      const settle = (): void => {
        clearTimeout(timer);
        unsubscribe();
      };
      const unsubscribe = this.#client.on('MIGRATION', (event) => {
        if (statusIn(event) !== 'failed') return;
        settle();
        this.#whyFailed().then(fail, (error: unknown) => fail(String(error)));
      });
      void this.#client.closed.then((error) => {
        settle();
        fail(error.message);
      });
      listener.connection.then(
        (socket) => {
          settle();
          if (socket) resolve(socket);
        },
        (error: unknown) => fail(String(error)),
      );
    });
  }

  /** Hears no more events. */
  close(): void {
    this.#unsubscribe();
  }

  /**
   * Post-copy: resolves once QEMU cannot run the guest again by itself any more.
   *
   * @throws GuestError when QEMU gave the migration up
   */
  async letsGo(stream: Pick<OutgoingStream, 'keepTaking'>): Promise<void> {
    if (LET_GO.includes(this.#status)) return;
    const left = await untilLetGo(stream, () =>
      awaitMigration(this.#client, (status) => status !== RUNS_AGAIN, LET_GO_TIMEOUT_MS),
    );
    if (!LET_GO.includes(left)) throw await this.#failure();
  }

  /** Waits until QEMU has ended it, one way or the other. Gives the status. */
  settled(): Promise<string> {
    return awaitMigration(this.#client, isOver, SETTLE_TIMEOUT_MS);
  }

  /**
   * Waits until QEMU has completed it.
   *
   * @throws GuestError when it came to another end
   */
  async completed(): Promise<void> {
    if ((await this.settled()) !== 'completed') throw await this.#failure();
  }

  async #failure(): Promise<GuestError> {
    const why = await this.#whyFailed();
    return new GuestError('E_GUEST_FAILED', `QEMU gave the migration up: ${why}`, SEE_LOG);
  }

  async #whyFailed(): Promise<string> {
    const reply = await typed(this.#client, 'query-migrate', migrateReply);
    if (reply.status === 'cancelled') return 'another client of its monitors cancelled it';
    return reply['error-desc'] ?? `QEMU's migration is "${reply.status ?? 'none'}" and gives no reason`;
  }
}

/** A post-copy is under way. */
export function isInPostcopy(status: string): boolean {
  return status === RUNS_AGAIN || status === 'postcopy-active';
}

function statusIn({ data }: Pick<QmpEvent, 'data'>): string {
  return String(data['status']);
}
