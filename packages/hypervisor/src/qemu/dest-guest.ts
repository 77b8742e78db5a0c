/**
 * The guest that enters: a QEMU that waits with `-incoming` gets the items as a stream again.
 *
 *     idle ── open ──▶ loading ── all state applied ──▶ ready (loaded, paused) ── run ──▶ running
 *                         │                                │
 *                         └────────── discard ◀────────────┘
 *
 * `stop` before the stream makes sure that QEMU never starts the guest by itself, whether it was given -S
 * or not; only `run` starts it. A `cont` of somebody else's that lets it run before is undone at once, and told. Disks are taken over at that moment too (late-block-activate), so that a
 * source that goes on after all finds them free.
 */
import { GuestError } from '@vmferry/engine/errors';
import type {
  DestEvent,
  DestGuest,
  DestItem,
  DestPlan,
  Examination,
  GuestDescription,
  PrepareResult,
} from '@vmferry/engine/guest';
import type { Millis } from '@vmferry/engine/units';
import { IncomingStream } from './incoming-stream.ts';
import { destBlockers } from './inspect/blockers.ts';
import { destSettings, MigrationSettings } from './inspect/capabilities.ts';
import { compareForMigration } from './inspect/compare.ts';
import { memoryBeyondUserfaultfd } from './inspect/file-memory.ts';
import { describeGuest } from './inspect/guest.ts';
import { setMark, takeMark } from './mark.ts';
import { connectToQemu, privateSocketPath } from './migration-socket.ts';
import { awaitMigration } from './migration-status.ts';
import { QmpClient } from './qmp/client.ts';
import { asGuestError, isClosed } from './qmp/errors.ts';
import { statusReply, typed } from './qmp/schema.ts';

const LOAD_TIMEOUT_MS = 120_000;
/** Somebody who goes on letting the guest run is not fought for ever. */
const MOST_HOLDS = 10;

export class QemuDestGuest implements DestGuest {
  readonly gone: Promise<GuestError>;
  remark: string | undefined;
  readonly #client: QmpClient;
  readonly #name: string;
  readonly #settings: MigrationSettings;
  readonly #endUnused: boolean;
  readonly #stream = new IncomingStream();
  #opened = false;
  #session = '';
  /** The agent's word came, or an operator was called: who lets the guest run from now on may. */
  #mayRun = false;
  /** When the guest was let run, as long as it runs. */
  #runsSince: Millis | undefined;
  /** A guest that ran too early is being stopped. Never rejects. */
  #heldBack: Promise<unknown> = Promise.resolve();
  /** Settled when `open` has come to its end, whichever way. */
  #opening: Promise<unknown> = Promise.resolve();

  /**
   * `endUnused`: QEMU was started for this migration and ends with `close` when nothing came of it.
   *
   * @throws GuestError when the monitor cannot be had
   */
  static async connect(path: string, { endUnused = false } = {}): Promise<QemuDestGuest> {
    try {
      return new QemuDestGuest(await QmpClient.connect(path), `qemu:${path}`, endUnused);
    } catch (error) {
      throw asGuestError(error);
    }
  }

  private constructor(client: QmpClient, name: string, endUnused: boolean) {
    this.#client = client;
    this.#name = name;
    this.#endUnused = endUnused;
    this.#settings = new MigrationSettings(client);
    client.on('RESUME', ({ atMs }) => {
      this.#runsSince = atMs;
      if (this.#opened && !this.#mayRun) this.#holdBack();
    });
    client.on('STOP', () => {
      this.#runsSince = undefined;
    });
    this.gone = client.closed.then(
      (error) =>
        new GuestError(
          'E_GUEST_GONE',
          `the destination's QEMU is gone: ${error.message}`,
          "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
          { cause: error },
        ),
    );
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#stream.events;
  }

  async prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult> {
    return await this.#asking(async () => {
      const [reasons, own] = await Promise.all([
        destBlockers(this.#client),
        describeGuest(this.#client, this.#name),
      ]);
      reasons.push(...compareForMigration(description, own, { postcopy: plan.postcopy }));
      if (plan.postcopy) reasons.push(...(await memoryBeyondUserfaultfd(this.#client)));
      if (reasons.length === 0 && plan.postcopy) reasons.push(...(await this.#tryPostcopy()));
      if (reasons.length > 0) return { ok: false, reasons };
      return { ok: true, hypervisorVersion: own.hypervisorVersion, nics: own.nics };
    });
  }

  /** QEMU tests userfaultfd when the capability is set, and only then. */
  async #tryPostcopy(): Promise<GuestError[]> {
    try {
      await this.#settings.apply(destSettings(true));
      await this.#settings.restore();
      return [];
    } catch (error) {
      if (error instanceof GuestError) return [error];
      throw error;
    }
  }

  open(plan: DestPlan, session: string): Promise<void> {
    const opened = this.#open(plan, session);
    this.#opening = opened.catch(() => {});
    return opened;
  }

  async #open(plan: DestPlan, session: string): Promise<void> {
    this.#session = session;
    const place = await privateSocketPath();
    try {
      await this.#asking(async () => {
        await this.#client.execute('stop');
        await this.#settings.apply(destSettings(plan.postcopy));
        this.#opened = true;
        await setMark(this.#client, session);
        await this.#client.execute('migrate-incoming', { uri: `unix:${place.path}` });
      });
      this.#stream.begin(connectToQemu(place.path));
    } finally {
      await place.remove();
    }
  }

  apply(item: DestItem): Promise<void> {
    return this.#stream.apply(item);
  }

  async ready(): Promise<void> {
    await this.#asking(async () => {
      if (this.#stream.postcopy) await this.#untilStateLoaded();
      else await this.#untilCompleted();
      const status = await this.#restingState();
      if (status === 'inmigrate' || status === 'running') {
        throw new GuestError(
          'E_GUEST_FAILED',
          `the destination's QEMU is "${status}" where it should be loaded and paused`,
          "look into QEMU's log on the destination host",
        );
      }
    });
  }

  /** The answer to the ping comes just before QEMU's main loop has gone over from "inmigrate" to paused. */
  async #untilStateLoaded(): Promise<void> {
    await Promise.race([this.#stream.stateLoaded, this.#untilGone()]);
    for (let tries = 0; tries < 2000; tries += 1) {
      if ((await this.#status()) !== 'inmigrate') return;
    }
  }

  async #restingState(): Promise<string> {
    let status = await this.#status();
    for (let holds = 0; status === 'running' && holds < MOST_HOLDS; holds += 1) {
      await this.#heldBack;
      status = await this.#status();
    }
    return status;
  }

  async #status(): Promise<string> {
    const options = { timeoutMs: LOAD_TIMEOUT_MS };
    return (await typed(this.#client, 'query-status', statusReply, undefined, options)).status;
  }

  /** It may belong to the source still: what it does here would be lost, or be done twice. */
  #holdBack(): void {
    this.remark =
      'Somebody let the guest run on the destination (cont) before it was committed there. It was stopped at once; what it had sent or written to its disks by then stays so.';
    // A monitor that died is told by `gone`.
    this.#heldBack = this.#client.execute('stop').catch(() => {});
  }

  async #untilGone(): Promise<never> {
    throw await this.gone;
  }

  async complete(): Promise<void> {
    await this.#asking(() => this.#untilCompleted());
  }

  async #untilCompleted(): Promise<void> {
    const ended = (status: string): boolean => status === 'completed' || status === 'failed';
    if ((await awaitMigration(this.#client, ended)) === 'completed') return;
    throw new GuestError(
      'E_GUEST_FAILED',
      "the destination's QEMU could not load the guest",
      "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
    );
  }

  async run({ paused }: { paused: boolean }): Promise<{ readonly atMs: Millis }> {
    this.#mayRun = true;
    return await this.#asking(async () => {
      // Not awaited: QEMU takes commands in their order, and this one is not to hold the guest up.
      const unmarked = takeMark(this.#client, this.#session);
      if (paused) {
        await unmarked;
        return { atMs: Date.now() as Millis };
      }
      const resumed = this.#client.waitForEvent('RESUME', () => true, { timeoutMs: LOAD_TIMEOUT_MS });
      resumed.catch(() => {});
      await Promise.all([unmarked, this.#client.execute('cont', undefined, { timeoutMs: LOAD_TIMEOUT_MS })]);
      // Who was faster has had the event.
      return { atMs: this.#runsSince ?? (await resumed).atMs };
    });
  }

  handOver(): void {
    this.#mayRun = true;
  }

  /** Only the guest itself knows what its memory should hold. */
  examine(): Promise<Examination> {
    return Promise.resolve({ found: 'nothing' });
  }

  async announceSelf(): Promise<void> {
    await this.#asking(() =>
      this.#client.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 100 }),
    );
  }

  async discard(): Promise<void> {
    // What is half begun cannot be ended: it would begin after its end.
    await this.#opening;
    if (!this.#opened) {
      await this.settle();
      return;
    }
    this.#stream.answerWithZeros();
    const ended = this.#quit();
    // QEMU 11 waits for the stream's first bytes on its main loop, and answers nobody until they or the end come.
    if (this.#stream.untouched) this.#stream.close();
    await ended;
  }

  async #quit(): Promise<void> {
    try {
      await this.#client.execute('quit');
    } catch (error) {
      if (!isClosed(error)) throw asGuestError(error);
    }
  }

  async settle(): Promise<void> {
    await this.#asking(() => this.#settings.restore());
  }

  async close(): Promise<void> {
    this.#stream.close();
    if (this.#endUnused && !this.#opened) await this.#quit();
    await this.#client.close();
  }

  async #asking<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw asGuestError(error);
    }
  }
}
