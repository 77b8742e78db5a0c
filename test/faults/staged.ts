/** An agent in a process of its own, from the outside: see `staged-agent.ts`. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrateRequestInput } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { ManagedProcess, within } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import type { Step } from './steps.ts';

const MAIN = join(repoRoot(), 'test/dist/faults/staged-agent.js');
const STARTED_MS = 60_000;

type Said =
  | { readonly url: string }
  | { readonly at: Step }
  | { readonly event: MigrationEvent }
  | { readonly report: MigrationReport };

export class StagedAgent {
  readonly url: string;
  readonly #process: ManagedProcess;
  readonly #said: Said[];
  readonly #listeners: Set<() => void>;

  static async start(role: 'source' | 'dest', options: object): Promise<StagedAgent> {
    const process_ = new ManagedProcess([process.execPath, MAIN, role, JSON.stringify(options)]);
    const said: Said[] = [];
    const listeners = new Set<() => void>();
    createInterface({ input: process_.child.stdout }).on('line', (line) => {
      said.push(JSON.parse(line) as Said);
      for (const listener of listeners) listener();
    });
    if (process.env['VMFERRY_TEST_LOG']) process_.child.stderr.pipe(process.stderr);
    const agent = new StagedAgent(process_, said, listeners, '');
    const url = await agent.#first(STARTED_MS, (each) => ('url' in each ? each.url : undefined));
    return new StagedAgent(process_, said, listeners, url);
  }

  private constructor(process: ManagedProcess, said: Said[], listeners: Set<() => void>, url: string) {
    this.#process = process;
    this.#said = said;
    this.#listeners = listeners;
    this.url = url;
  }

  get lives(): boolean {
    return this.#process.status === undefined;
  }

  /** The guest is to wait at its next such step. */
  hold(step: Step): void {
    this.#order({ hold: step });
  }

  /** It waits no longer. */
  goOn(): void {
    this.#order({ go: true });
  }

  migrate(request: MigrateRequestInput): StagedMigration {
    const from = this.#said.length;
    this.#order({ migrate: request });
    return {
      done: (ms = 180_000) => this.#first(ms, (each) => ('report' in each ? each.report : undefined), from),
      when: (matches, ms = 60_000) =>
        this.#first(ms, (each) => ('event' in each && matches(each.event) ? true : undefined), from),
    };
  }

  /** The guest has got there, since this was called. */
  async at(step: Step, ms = 60_000): Promise<void> {
    await this.#first(ms, (each) => ('at' in each && each.at === step ? true : undefined), this.#said.length);
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process.exited;
  }

  async stop(): Promise<void> {
    await this.kill();
  }

  #order(order: object): void {
    this.#process.child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  async #first<T>(ms: number, find: (said: Said) => T | undefined, from = 0): Promise<T> {
    let next = from;
    let listener = (): void => {};
    const found = new Promise<T>((resolve, reject) => {
      listener = () => {
        for (; next < this.#said.length; next += 1) {
          const result = find(this.#said[next]!);
          if (result !== undefined) resolve(result);
        }
      };
      this.#listeners.add(listener);
      listener();
      void this.#process.exited.then(() => {
        listener();
        reject(new Error(`the agent ended: ${this.#process.stderr.slice(-2000)}`));
      });
    });
    found.catch(() => {});
    const tail = () => `nothing of the kind of ${JSON.stringify(this.#said.slice(from).slice(-12))}`;
    try {
      return await within(ms, tail, found);
    } finally {
      this.#listeners.delete(listener);
    }
  }
}

export interface StagedMigration {
  /** Rejects when the agent ends before. */
  done(ms?: number): Promise<MigrationReport>;
  when(matches: (event: MigrationEvent) => boolean, ms?: number): Promise<unknown>;
}
