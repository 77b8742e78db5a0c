/** JSON lines on standard error: for journald and log collectors. People get the command's own display. */
import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino';
import type { AgentRole } from './operations.ts';

export type { Logger } from 'pino';

export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogOptions {
  readonly level: LogLevel;
  /** Bound to every line, so that the lines of two agents on one host can be told apart. */
  readonly role: AgentRole | 'cli';
  /** By default standard error; standard output is never written to. */
  readonly destination?: DestinationStream;
}

/** Kept for when it can be written after all; what comes then is lost. */
const MAX_UNWRITTEN_BYTES = 1024 * 1024;

/** Writes synchronously: what an agent said before it died is on disk. */
export function createLogger(options: LogOptions): Logger {
  const settings: LoggerOptions = {
    level: options.level,
    base: { role: options.role, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: ['token', 'secret', 'key', '*.token', '*.secret', '*.key'], censor: '[hidden]' },
  };
  return pino(settings, options.destination ?? standardError());
}

/** A closed terminal or a full disk costs lines of the log, and not the agent, which else would end with the guests. */
function standardError(): DestinationStream {
  const stream = pino.destination({ dest: 2, sync: true, maxLength: MAX_UNWRITTEN_BYTES });
  stream.on('error', () => {});
  return stream;
}

/** The logger of one migration: every line names its session and its guest. */
export function migrationLogger(log: Logger, bindings: { session: string; guest: string }): Logger {
  return log.child(bindings);
}
