/**
 * What an agent does between its start and its first migration: it moves a small simulated guest from itself to
 * itself, over loopback, until the JavaScript engine has compiled what a migration runs through. V8 interprets what
 * it has seldom run and compiles the rest beside it, on cores that the guests need; the first migration of an agent
 * took some 300 ms longer for that (512 MiB at 1 Gbit/s, on two cores), most of it in its first half second.
 *
 *     begun ──▶ moves ──▶ enough of them ──▶ what the agent rehearses by itself ──▶ ended
 *                 └─ a migration comes, the agent ends ──▶ the move is cancelled ──▶ ended
 *
 * Nothing of it is seen from outside: its agents are others than those that are served, with a directory and a secret
 * of their own, and a failure is a line in the log.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger, type Logger } from '@vmferry/agent-core/log';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import type { AgentServer } from '@vmferry/agent-core/serve';
import { type ChosenStrategy, migrateRequestSchema } from '@vmferry/engine/options';
import { guestFileSchema } from '@vmferry/memsim/guest-file/schema';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import type { AgentFactory, EmbeddedDest, EmbeddedSource } from './embedded.ts';
import { serveOnLoopback } from './loopback.ts';

const MOVES: readonly ChosenStrategy[] = ['precopy', 'precopy', 'postcopy', 'precopy'];

/** Small, for it is in memory twice; with little that is zero, for what is zero is soon done with. */
const GUEST: GuestDefinition = {
  file: guestFileSchema.parse({
    name: 'rehearsal',
    memory: '16MiB',
    content: { zero: 0.1, text: 0.6, random: 0.3, duplicate: 0 },
    workload: { kind: 'uniform', pagesPerSec: 200 },
  }),
  traces: {},
};

export interface RehearsalOptions {
  readonly agents: AgentFactory;
  /** What the agent that is served rehearses by itself. It is not waited for once a migration comes. */
  readonly own?: () => Promise<void>;
  readonly log: Logger;
}

export class Rehearsal {
  readonly #options: RehearsalOptions;
  readonly #whenStopped: Promise<void>;
  #stopped = false;
  #tellStopped: () => void = () => {};
  #moving: RunningMigration | undefined;

  constructor(options: RehearsalOptions) {
    this.#options = options;
    this.#whenStopped = new Promise((resolve) => {
      this.#tellStopped = resolve;
    });
  }

  /** Resolves when it is over. Never rejects. */
  async run(): Promise<void> {
    const { log } = this.#options;
    const began = performance.now();
    let moves = 0;
    try {
      const directory = await mkdtemp(join(tmpdir(), 'vmferry-rehearsal-'));
      try {
        for (const strategy of MOVES) {
          if (this.#stopped) break;
          if (await this.#move(strategy, directory)) moves += 1;
        }
        if (!this.#stopped) await Promise.race([this.#rehearseOwn(), this.#whenStopped]);
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
      log.info({ moves, ms: Math.round(performance.now() - began) }, 'rehearsed');
    } catch (error) {
      log.warn({ err: error }, 'the rehearsal failed: the first migration will take a little longer');
    }
  }

  /** There is something better to do. What is under way is cancelled. */
  stop(): void {
    this.#stopped = true;
    this.#tellStopped();
    this.#moving?.cancel();
  }

  /** Never rejects: what does not work here is told to whoever asks for it. */
  async #rehearseOwn(): Promise<void> {
    const { log, own } = this.#options;
    try {
      await own?.();
    } catch (error) {
      log.debug({ err: error }, "the agent's own rehearsal failed");
    }
  }

  /** Whether it came to its end. Each move has agents of its own, so that the guest never was there before. */
  async #move(strategy: ChosenStrategy, directory: string): Promise<boolean> {
    const { agents } = this.#options;
    const token = randomBytes(32).toString('hex');
    const common = {
      stateDir: directory,
      insecure: false,
      token,
      log: createLogger({ level: 'silent', role: 'cli' }),
    };
    let dest: EmbeddedDest | undefined;
    let server: AgentServer | undefined;
    let source: EmbeddedSource | undefined;
    try {
      dest = await agents.dest(common, [GUEST]);
      server = await serveOnLoopback(dest, { token, log: common.log });
      source = await agents.source(common, [GUEST]);
      if (this.#stopped) return false;
      const request = { guest: `sim:${GUEST.file.name}`, to: server.url, strategy };
      this.#moving = source.migrate(migrateRequestSchema.parse(request));
      const { outcome, error } = await this.#moving.done;
      if (outcome !== 'completed' && outcome !== 'cancelled')
        throw new Error(`${outcome}: ${error?.message}`);
      return outcome === 'completed';
    } finally {
      this.#moving = undefined;
      await source?.close();
      await dest?.close();
      await server?.close();
    }
  }
}
