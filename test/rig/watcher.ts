import type { QemuProcess } from './qemu.ts';
import { Qmp } from './qmp.ts';

export class TwoRunningError extends Error {
  readonly code = 'TEST_TWO_RUNNING';
}

/** A span in which one QEMU ran its guest; milliseconds since 1970, `endMs` undefined while it runs. */
export interface RunSpan {
  readonly qemu: string;
  readonly startMs: number;
  readonly endMs: number | undefined;
}

export interface WatchReport {
  readonly spans: readonly RunSpan[];
  /** Time in which two ran; 0 in a sound migration. */
  readonly overlapMs: number;
  /** Gaps between a STOP in one QEMU and the next RESUME in another: the true downtimes. */
  readonly handovers: readonly { readonly from: string; readonly to: string; readonly downtimeMs: number }[];
  readonly polls: number;
  /** Polls that contradict the events. */
  readonly contradictions: readonly string[];
}

interface Watched {
  readonly name: string;
  readonly qmp: Qmp;
  running: boolean;
  readonly unsubscribe: () => void;
}

/**
 * Watches QEMUs on monitors of its own. The spans come from the stamps of RESUME, which QEMU emits before the
 * vCPUs run, and STOP, which it emits after they stand: they are never too short. `query-status` every 20 ms
 * confirms them.
 */
export class RunWatcher {
  readonly #watched: Watched[] = [];
  readonly #spans: { qemu: string; startMs: number; endMs: number | undefined }[] = [];
  readonly #contradictions: string[] = [];
  #polls = 0;
  #polling: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  static async watch(qemus: readonly QemuProcess[]): Promise<RunWatcher> {
    const watcher = new RunWatcher();
    for (const qemu of qemus) await watcher.add(qemu);
    watcher.#schedule();
    return watcher;
  }

  /** One more QEMU, such as the next destination. */
  async add(qemu: QemuProcess): Promise<void> {
    const { name } = qemu;
    const qmp = await Qmp.connect(qemu.watcherQmp);
    const watched: Watched = {
      name,
      qmp,
      running: false,
      unsubscribe: qmp.onEvent(({ event, atMs }) => {
        if (event === 'RESUME') this.#began(watched, atMs);
        if (event === 'STOP') this.#endedAt(watched, atMs);
      }),
    };
    qmp.closed.then(() => this.#endedAt(watched, now()));
    const before = now();
    const running = (await qmp.query('query-status'))['running'] === true;
    if (running && !watched.running) this.#began(watched, before);
    this.#watched.push(watched);
  }

  /** What was seen so far. */
  report(): WatchReport {
    const spans = [...this.#spans].sort((a, b) => a.startMs - b.startMs);
    const end = now();
    let overlapMs = 0;
    for (const [i, a] of spans.entries()) {
      for (const b of spans.slice(i + 1)) {
        const shared = Math.min(a.endMs ?? end, b.endMs ?? end) - Math.max(a.startMs, b.startMs);
        if (a.qemu !== b.qemu && shared > 0) overlapMs += shared;
      }
    }
    const handovers = spans.flatMap((span, i) => {
      const previous = spans[i - 1];
      if (previous?.endMs === undefined || previous.qemu === span.qemu) return [];
      return [{ from: previous.qemu, to: span.qemu, downtimeMs: span.startMs - previous.endMs }];
    });
    return { spans, overlapMs, handovers, polls: this.#polls, contradictions: [...this.#contradictions] };
  }

  /** Ends the watch; throws TwoRunningError if two ran at any instant, or a poll contradicts the events. */
  async finish(): Promise<WatchReport> {
    await this.close();
    const report = this.report();
    if (report.overlapMs > 0) {
      throw new TwoRunningError(`two QEMUs ran for ${report.overlapMs} ms: ${JSON.stringify(report.spans)}`);
    }
    if (report.contradictions.length > 0) throw new TwoRunningError(report.contradictions.join('\n'));
    return report;
  }

  /** Ends the watch without a verdict. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    await this.#polling;
    for (const { qmp, unsubscribe } of this.#watched) {
      unsubscribe();
      qmp.close();
    }
  }

  #began(watched: Watched, atMs: number): void {
    if (watched.running) return;
    watched.running = true;
    this.#spans.push({ qemu: watched.name, startMs: atMs, endMs: undefined });
  }

  #endedAt(watched: Watched, atMs: number): void {
    if (this.#ended || !watched.running) return;
    watched.running = false;
    const span = this.#spans.findLast((s) => s.qemu === watched.name && s.endMs === undefined);
    if (span) span.endMs = atMs;
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#polling = this.#poll().finally(() => {
        if (!this.#ended) this.#schedule();
      });
    }, 20);
  }

  async #poll(): Promise<void> {
    await Promise.all(
      this.#watched.map(async (watched) => {
        // QEMU changes its state an instant before it emits the event: only a lasting difference counts.
        if ((await this.#differs(watched)) === undefined) return;
        const difference = await this.#differs(watched);
        if (difference !== undefined) this.#contradictions.push(difference);
      }),
    );
    this.#polls++;
  }

  async #differs({ name, qmp, ...watched }: Watched): Promise<string | undefined> {
    if (qmp.isClosed) return undefined;
    const events = qmp.events.length;
    const status = await qmp.query('query-status').catch(() => undefined);
    // An event on the way says that it changed meanwhile: this poll proves nothing.
    if (!status || qmp.events.length !== events) return undefined;
    const ran = watched.running;
    // It stands by then; STOP follows when all that it had to do with the disks is done.
    if (ran && status['status'] === 'finish-migrate') return undefined;
    if ((status['running'] === true) === ran) return undefined;
    return `${name} is ${status['status']}, but by its events it ${ran ? 'runs' : 'stands'}`;
  }
}

function now(): number {
  return performance.timeOrigin + performance.now();
}
