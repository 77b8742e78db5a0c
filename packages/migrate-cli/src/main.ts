#!/usr/bin/env node
import { run } from './run.ts';

/** What is left open when the report is out keeps nobody waiting for longer. */
const LINGER_MS = 2000;

// `vmferry … | head` ends the reader, and a closed terminal or a full disk what is read: not the migration, nor an agent
// that guests lean on. Whoever waits for what it wrote is told by `write`.
for (const output of [process.stdout, process.stderr]) output.on('error', () => {});

process.exitCode = await run(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signals: process,
});
setTimeout(() => process.exit(), LINGER_MS).unref();
