/** Shows a migration up to its end: the display, the events' file, the report, the exit status. */
import { messageOf } from '@vmferry/engine/errors';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { createDisplay, type Display, quietDisplay } from './display/display.ts';
import { plain } from './display/progress.ts';
import { renderError, renderSummary } from './display/summary.ts';
import { type EventsFile, openEventsFile } from './events-file.ts';
import { type CommandIo, write } from './io.ts';
import { writeJunit } from './junit.ts';
import type { Observation } from './operator.ts';
import { bareReport, errorReportOf, usageError } from './reports.ts';

export interface OutputOptions {
  readonly io: CommandIo;
  readonly json?: boolean;
  /** A file's name, or "-" for standard output. */
  readonly events?: string;
  /** Where the report goes as a test result. */
  readonly junit?: string;
}

export interface FollowOptions extends OutputOptions {
  /**
   * Resolves with an exit status when nobody wants to see more and the migration does not mind, or with the report of
   * one that is given up.
   */
  readonly interrupted?: Promise<number | MigrationReport>;
  /** By default the engine's. */
  readonly statusOf?: (report: MigrationReport) => number;
  /** An events' file that is open already. */
  readonly eventsFile?: EventsFile;
  /** Is given the display, to say things through it. */
  readonly onDisplay?: (display: Display) => void;
}

/** Opens what `--events` names. Rejects with `E_USAGE` or `E_CONFIG`. */
export async function openEvents(options: OutputOptions): Promise<EventsFile | undefined> {
  if (options.events === undefined) return undefined;
  if (options.events === '-' && options.json === true) {
    throw usageError('--events - and --json both want standard output: give --events a file');
  }
  return openEventsFile(options.events, options.io.stdout);
}

/** Gives the exit status. Never rejects for what befalls the migration or the connection. */
export async function follow(observation: Observation, options: FollowOptions): Promise<number> {
  const { io } = options;
  const { summary } = observation;
  const file = options.eventsFile ?? (await openEvents(options));
  const display =
    options.json === true
      ? quietDisplay(io.stderr)
      : createDisplay({ output: io.stderr, id: summary.id, guest: summary.guest, to: summary.peer });
  options.onDisplay?.(display);
  const ended = show(observation, display, file);
  const report = await Promise.race([ended, options.interrupted ?? new Promise<never>(() => {})]);
  display.end();
  const failure = await file?.close();
  if (failure !== undefined) {
    await write(io.stderr, `not all events are in ${plain(options.events ?? '')}: ${failure.message}\n`);
  }
  if (typeof report !== 'number') {
    await printReport(report, options);
    return (options.statusOf ?? exitStatus)(report);
  }
  await write(io.stderr, `the migration goes on; see it again with \`vmferry watch ${plain(summary.id)}\`\n`);
  // As `status --json` has it: there is no report yet.
  if (options.json === true)
    await write(io.stdout, `${JSON.stringify({ schema: 1, summary, report: null })}\n`);
  return report;
}

async function show(
  observation: Observation,
  display: Display,
  file: EventsFile | undefined,
): Promise<MigrationReport> {
  for await (const event of observation.events) {
    display.event(event);
    file?.write(event);
  }
  try {
    return await observation.report;
  } catch (thrown) {
    // It runs, and how it fares can no longer be told.
    return bareReport('attention', errorReportOf(thrown), observation.summary);
  }
}

/** `--json`: one object on standard output. Otherwise a table there, and the error on standard error. */
export async function printReport(report: MigrationReport, options: OutputOptions): Promise<void> {
  const { io, junit } = options;
  if (junit !== undefined) await saveJunit(junit, report, io);
  if (options.json === true) {
    await write(io.stdout, `${JSON.stringify(report)}\n`);
    return;
  }
  // Events on standard output are for a program: what people read goes elsewhere.
  await write(options.events === '-' ? io.stderr : io.stdout, renderSummary({ ...report, error: null }));
  if (report.error !== null) await write(io.stderr, renderError(report.error));
}

/** A report that cannot be saved does not change how the migration ended. */
export async function saveJunit(file: string, report: MigrationReport, io: CommandIo): Promise<void> {
  try {
    await writeJunit(file, report, new Date());
  } catch (thrown) {
    await write(io.stderr, `${messageOf(thrown)}\n`);
  }
}
