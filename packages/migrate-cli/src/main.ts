#!/usr/bin/env node
import { run } from './run.ts';

/** What is left open when the report is out keeps nobody waiting for longer. */
const LINGER_MS = 2000;

// `vmferry … | head` ends the reader, not the migration.
for (const output of [process.stdout, process.stderr]) {
  output.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

process.exitCode = await run(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signals: process,
});
setTimeout(() => process.exit(), LINGER_MS).unref();
