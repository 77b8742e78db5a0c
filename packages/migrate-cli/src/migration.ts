/**
 * `vmferry migrate`: finds or makes the agents, starts the migration, follows it.
 *
 *     --from and --to    the migration runs in the source agent; this command is its operator
 *     --to               the source agent runs in this process
 *     neither            both do; the destination listens on loopback, behind a token of this run
 */
import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { readConfigFile } from '@vmferry/agent-core/config';
import type { AgentServer } from '@vmferry/agent-core/serve';
import type { MigrateRequest } from '@vmferry/engine/options';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import type { CommandContext } from './context.ts';
import type { EventsFile } from './events-file.ts';
import { follow, openEvents, printReport, saveJunit } from './follow.ts';
import { Interrupts } from './interrupts.ts';
import { openJunit } from './junit.ts';
import { serveOnLoopback } from './loopback.ts';
import {
  ConnectionLost,
  connectOperator,
  localOperator,
  type Observation,
  type Operator,
  type Status,
} from './operator.ts';
import { type Asked, bareReport, errorReportOf, refusedReport, usageError } from './reports.ts';
import { type MigrateOptions, requestOf } from './request.ts';
import { type HostSettings, loadSettings, loggerFor } from './settings.ts';
import { findGuests, type Guests } from './simulated.ts';

/** After an interrupt, for the outcome of a migration of which nothing stays. */
const GRACE_MS = 2000;

/** Where the migration runs, and what to let go of afterwards. */
interface Place {
  readonly operator: Operator;
  /** The destination's URL. */
  readonly to: string;
  close(): Promise<void>;
}

/** Gives the exit status. Rejects only for usage and configuration. */
export async function runMigration(
  guest: string,
  given: MigrateOptions,
  context: CommandContext,
): Promise<number> {
  if (given.junit !== undefined) await openJunit(given.junit);
  const { options, settings, eventsFile } = await orRefused(prepare(guest, given, context), {
    ...{ guest, options: given, context },
  });
  const interrupts = new Interrupts(context);
  try {
    const { guest: uri, destGuest } = settings.guests;
    const named = { ...options, ...(destGuest === undefined ? {} : { destGuest }) };
    return await migrate(uri, named, settings, eventsFile, interrupts, context);
  } finally {
    interrupts.close();
    await eventsFile?.close();
  }
}

function readXml(file: string): Promise<string> {
  return readConfigFile(file, 'domain', 'cli', 'E_USAGE');
}

/** Everything that can be wrong with what was asked for. */
async function prepare(
  guest: string,
  given: MigrateOptions,
  context: CommandContext,
): Promise<{
  readonly options: MigrateOptions;
  readonly settings: Settings;
  readonly eventsFile: EventsFile | undefined;
}> {
  // Agents are never given a path.
  const options = given.destXml === undefined ? given : { ...given, destXml: await readXml(given.destXml) };
  if (options.from !== undefined && options.to === undefined) {
    throw usageError('--from without --to: name the destination agent, as in --to wss://host2:4447');
  }
  if (options.to === undefined && guest.startsWith('qemu:/') && (options.destGuest ?? guest) === guest) {
    throw usageError(
      `${guest} would move to itself: name the QEMU that waits for it with --dest-guest, or another host's agent with --to`,
    );
  }
  requestOf(guest, options.to ?? 'ws://127.0.0.1:0', false, options);
  const settings = await loadSettings(options, context.io, 'cli');
  const guests = await findGuests(guest, options, settings);
  const eventsFile = await openEvents({ ...options, io: context.io });
  return { options, settings: { ...settings, guests }, eventsFile };
}

interface Attempt {
  readonly guest: string;
  readonly options: MigrateOptions;
  readonly context: CommandContext;
}

/** What keeps a migration from being begun is in the JUnit report, too. */
async function orRefused<T>(work: Promise<T>, { guest, options, context }: Attempt): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const report = refusedReport(errorReportOf(thrown), { guest, strategy: options.strategy });
    if (options.junit !== undefined) await saveJunit(options.junit, report, context.io);
    throw thrown;
  }
}

interface Settings extends HostSettings {
  readonly guests: Guests;
}

async function migrate(
  guest: string,
  options: MigrateOptions,
  settings: Settings,
  eventsFile: EventsFile | undefined,
  interrupts: Interrupts,
  context: CommandContext,
): Promise<number> {
  const output = { ...options, io: context.io };
  const asked = { guest, strategy: options.strategy };
  const print = async (report: MigrationReport) => {
    await printReport(report, output);
    return exitStatus(report);
  };
  const opening = openPlace(options, settings, context);
  const place = await orRefused(Promise.race([opening, interrupts.first]), { guest, options, context });
  if (place === 'interrupted') {
    opening.then((late) => late.close()).catch(() => {});
    return print(bareReport('cancelled', null, asked));
  }
  let abandoned = false;
  try {
    const request = requestOf(guest, place.to, settings.insecure, options);
    const observation = await start(place.operator, request);
    if ('outcome' in observation) return await print(observation);
    const { id } = observation.summary;
    interrupts.cancelWith(() => place.operator.cancel(id));
    return await follow(observation, {
      ...output,
      ...(eventsFile === undefined ? {} : { eventsFile }),
      ...(isAllInside(guest, options)
        ? {
            interrupted: interrupts.first.then(async () => {
              await setTimeout(GRACE_MS, undefined, { ref: false });
              abandoned = true;
              return abandonedReport(await place.operator.status(id), asked);
            }),
          }
        : {}),
      onDisplay: (display) => interrupts.speakThrough(display),
    });
  } finally {
    // Closing waits for the migration's end.
    if (abandoned) void place.close().catch(() => {});
    else await place.close();
  }
}

/** A simulated guest that leaves and arrives in this process ends with it: nothing is lost that was not lost anyway. */
function isAllInside(guest: string, { from, to }: MigrateOptions): boolean {
  return guest.startsWith('sim:') && from === undefined && to === undefined;
}

/** Of a migration of a simulated guest that could no longer be cancelled when the command was told to end. */
function abandonedReport({ summary }: Status, asked: Asked): MigrationReport {
  const { phase } = summary;
  return bareReport(
    'cancelled',
    {
      ...{ code: 'E_CANCELLED', side: 'cli', phase, guestRunsOn: 'neither' },
      message: 'the migration could not be cancelled any more: the simulated guest ended with the command',
      remedy: 'Start it again when it is wanted, or let it come to its end.',
    },
    asked,
  );
}

/** A refusal is a report as any other end. */
async function start(operator: Operator, request: MigrateRequest): Promise<Observation | MigrationReport> {
  try {
    return await operator.migrate(request);
  } catch (thrown) {
    if (thrown instanceof ConnectionLost) return bareReport('attention', thrown.report(), request);
    return refusedReport(errorReportOf(thrown), request);
  }
}

async function openPlace(
  options: MigrateOptions,
  settings: Settings,
  context: CommandContext,
): Promise<Place> {
  const { from, to } = options;
  const { insecure, tls, token } = settings;
  if (from !== undefined && to !== undefined) {
    const operator = await connectOperator(from, {
      insecure,
      ...(tls === undefined ? {} : { tls }),
      ...(token === undefined ? {} : { token }),
    });
    return { operator, to, close: async () => operator.close() };
  }
  return to === undefined
    ? embedBoth(options, settings, context)
    : embedSource(to, token, options, settings, context);
}

async function embedSource(
  to: string,
  token: string | undefined,
  options: MigrateOptions,
  settings: Settings,
  context: CommandContext,
): Promise<Place> {
  const { stateDir, insecure, limits, libvirt, tls, file } = settings;
  const agent = await context.agents.source(
    {
      stateDir,
      insecure,
      limits,
      libvirt,
      guests: file.guests,
      log: loggerFor(context.io.stderr, options.logLevel, 'source'),
      ...(tls === undefined ? {} : { tls }),
      ...(token === undefined ? {} : { token }),
    },
    settings.guests.simulatedHere.source,
  );
  // A command that was killed before this one had its agents in it.
  if (options.resume !== true) await agent.settle(settings.guests.guest);
  return { operator: localOperator(agent), to, close: () => agent.close() };
}

async function embedBoth(
  options: MigrateOptions,
  settings: Settings,
  context: CommandContext,
): Promise<Place> {
  const token = randomBytes(32).toString('hex');
  const log = loggerFor(context.io.stderr, options.logLevel, 'dest');
  const { stateDir, limits, libvirt, file } = settings;
  const dest = await context.agents.dest(
    { stateDir, limits, libvirt, insecure: false, token, log, guests: file.guests },
    settings.guests.simulatedHere.dest,
  );
  let server: AgentServer | undefined;
  try {
    if (options.resume !== true) await dest.settle(settings.guests.destGuest ?? settings.guests.guest);
    server = await serveOnLoopback(dest, { token, log, maxFrameBytes: limits.maxFrameBytes });
    const source = await embedSource(server.url, token, options, settings, context);
    const listening = server;
    return {
      ...source,
      close: async () => {
        await source.close();
        await dest.close();
        await listening.close();
      },
    };
  } catch (thrown) {
    await dest.close();
    await server?.close();
    throw thrown;
  }
}
