/** `--events`: every event as one line of JSON, with the time at which this command heard of it. */
import { open } from 'node:fs/promises';
import { MigrationError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';
import type { Output } from './io.ts';

export interface EventsFile {
  /** Never throws: a full disk does not hold up a migration. */
  write(event: MigrationEvent): void;
  /** Resolves, when all is written, with the first thing that went wrong, if any. */
  close(): Promise<Error | undefined>;
}

/** "-" is standard output. Rejects with `E_CONFIG` when the file cannot be made. */
export async function openEventsFile(name: string, stdout: Output): Promise<EventsFile> {
  if (name === '-') {
    return {
      write: (event) => void stdout.write(lineOf(event)),
      close: async () => undefined,
    };
  }
  const file = await open(name, 'w').catch((cause: unknown) => {
    throw new MigrationError(`cannot write events to ${name}: ${String(cause)}`, {
      code: 'E_CONFIG',
      side: 'cli',
      phase: 'preflight',
      guestRunsOn: 'source',
      remedy: 'Give --events a file in a directory that exists and that you may write to.',
    });
  });
  const stream = file.createWriteStream();
  let failure: Error | undefined;
  const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()));
  stream.on('error', (error) => {
    failure ??= error;
  });
  return {
    write: (event) => {
      if (failure === undefined) stream.write(lineOf(event));
    },
    close: async () => {
      if (!stream.destroyed) stream.end();
      await closed;
      return failure;
    },
  };
}

/** `at`: milliseconds since 1970. */
function lineOf(event: MigrationEvent): string {
  return `${JSON.stringify({ ...event, at: Date.now() })}\n`;
}
