/** Serves `Operations` to commands behind a socket (see operator-api.ts). */
import { setTimeout as delay } from 'node:timers/promises';
import { MigrationError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import { migrateRequestSchema } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { type OperatorCall, type OperatorHandlers, serveOperator } from '@vmferry/wire/operator-server';
import type { WebSocket } from 'ws';
import { z } from 'zod';
import type { Logger } from './log.ts';
import type { MigrationSummary, Operations, RunningMigration } from './operations.ts';
import { VERSION } from './version.ts';

export interface OperatorServerOptions {
  /** What a command must show first; without one nothing is asked. */
  readonly token?: string;
  readonly log: Logger;
}

/** While so much waits for a slow command no events are sent to it; the hub drops progress meanwhile. */
const SLOW_BYTES = 128 * 1024;
const SLOW_CHECK_MS = 50;

/** Serves one connection until it ends. Never throws. */
export function serveOperations(
  socket: WebSocket,
  operations: Operations,
  options: OperatorServerOptions,
): void {
  serveOperator(socket, new Handlers(socket, operations, options.log), {
    ...(options.token === undefined ? {} : { token: options.token }),
    onDefect: (err) => options.log.error({ err }, 'an operation failed for a reason of our own'),
  });
}

class Handlers implements OperatorHandlers {
  readonly #socket: WebSocket;
  readonly #operations: Operations;
  readonly #log: Logger;

  constructor(socket: WebSocket, operations: Operations, log: Logger) {
    this.#socket = socket;
    this.#operations = operations;
    this.#log = log;
  }

  async hello() {
    return { role: this.#operations.role, version: VERSION };
  }

  async migrate(content: unknown, call: OperatorCall) {
    const parsed = migrateRequestSchema.safeParse(content);
    if (!parsed.success) throw this.#refuse(z.prettifyError(parsed.error), 'Correct the request.');
    const migration = this.#operations.migrate(parsed.data);
    this.#log.info(
      { session: migration.summary.id, guest: migration.summary.guest },
      'an operator asks for it',
    );
    return { report: await this.#observe(migration, call) };
  }

  async list() {
    return { migrations: this.#operations.list() };
  }

  async status(id: string | undefined) {
    if (id === undefined) return this.list();
    const migration = this.#operations.find(id);
    const summary = migration?.summary ?? this.#listed(id);
    const over = migration !== undefined && summary.outcome !== undefined;
    return { summary, report: over ? await migration.done : null };
  }

  async watch(id: string, call: OperatorCall) {
    const migration = this.#operations.find(id);
    if (migration !== undefined) return { report: await this.#observe(migration, call) };
    this.#listed(id);
    throw this.#refuse(
      `migration ${id} is over and its events are gone`,
      'Its outcome is what `vmferry list` tells; the journal has the rest.',
    );
  }

  async cancel(id: string) {
    const migration = this.#operations.find(id);
    if (migration === undefined) return { summary: this.#listed(id) };
    this.#log.info({ session: id }, 'an operator cancels');
    migration.cancel();
    return { summary: migration.summary };
  }

  #listed(id: string): MigrationSummary {
    const summary = this.#operations.list().find((listed) => listed.id === id);
    if (summary !== undefined) return summary;
    throw this.#refuse(`this agent knows no migration ${id}`, '`vmferry list` shows those that it knows.');
  }

  /** Sends the migration's events until it or the command is gone; the migration does not mind which. */
  async #observe(migration: RunningMigration, call: OperatorCall): Promise<MigrationReport> {
    const events = migration.events()[Symbol.asyncIterator]();
    const leave = () => void events.return?.();
    call.signal.addEventListener('abort', leave, { once: true });
    try {
      call.emit({ summary: migration.summary });
      await this.#send(events, call);
    } finally {
      call.signal.removeEventListener('abort', leave);
      await events.return?.();
    }
    return migration.done;
  }

  async #send(events: AsyncIterator<MigrationEvent>, call: OperatorCall): Promise<void> {
    while (!call.signal.aborted) {
      const next = await events.next();
      if (next.done === true) return;
      while (this.#socket.bufferedAmount > SLOW_BYTES && !call.signal.aborted) await delay(SLOW_CHECK_MS);
      call.emit(next.value);
    }
  }

  #refuse(message: string, remedy: string): MigrationError {
    return new MigrationError(message, {
      code: 'E_USAGE',
      // Where an agent has both roles, it is the source that is asked.
      side: this.#operations.role === 'dest' ? 'dest' : 'source',
      phase: 'preflight',
      guestRunsOn: this.#operations.role === 'dest' ? 'unknown' : 'source',
      remedy,
    });
  }
}
