/**
 * `vmferry migrate`: finds or makes the agents, starts the migration, follows it.
 *
 *     --from and --to    the migration runs in the source agent; this command is its operator
 *     --to               the source agent runs in this process
 *     neither            both do; the destination listens on loopback, behind a token of this run
 */
import { randomBytes } from 'node:crypto';
import { readConfigFile } from '@vmferry/agent-core/config';
import type { AgentServer } from '@vmferry/agent-core/serve';
import type { MigrateRequest } from '@vmferry/engine/options';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import type { CommandContext } from './context.ts';
import type { Display } from './display/display.ts';
import type { EventsFile } from './events-file.ts';
import { follow, openEvents, printReport, saveJunit } from './follow.ts';
import { onInterrupt } from './io.ts';
import { openJunit } from './junit.ts';
import { serveOnLoopback } from './loopback.ts';
import {
  ConnectionLost,
  connectOperator,
  localOperator,
  type Observation,
  type Operator,
} from './operator.ts';
import { bareReport, errorReportOf, refusedReport, usageError } from './reports.ts';
import { type MigrateOptions, requestOf } from './request.ts';
import { type HostSettings, loadSettings, loggerFor } from './settings.ts';
import { findGuests, type Guests } from './simulated.ts';

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
  // Agents are never given a path.
  const options = given.destXml === undefined ? given : { ...given, destXml: await readXml(given.destXml) };
  if (options.from !== undefined && options.to === undefined) {
    throw usageError('--from without --to: name the destination agent, as in --to wss://host2:4447');
  }
  // What can be wrong with the request is told before anything is begun.
  requestOf(guest, options.to ?? 'ws://127.0.0.1:0', false, options);
  if (options.junit !== undefined) await openJunit(options.junit);
  const { settings, eventsFile } = await prepare(guest, options, context);
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

async function prepare(
  guest: string,
  options: MigrateOptions,
  context: CommandContext,
): Promise<{ readonly settings: Settings; readonly eventsFile: EventsFile | undefined }> {
  try {
    const settings = await loadSettings(options, context.io, 'cli');
    const guests = await findGuests(guest, options, settings);
    const eventsFile = await openEvents({ ...options, io: context.io });
    return { settings: { ...settings, guests }, eventsFile };
  } catch (thrown) {
    const asked = { guest, strategy: options.strategy };
    const report = refusedReport(errorReportOf(thrown), asked);
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
  const place = await Promise.race([opening, interrupts.first]);
  if (place === 'interrupted') {
    opening.then((late) => late.close()).catch(() => {});
    return print(bareReport('cancelled', null, asked));
  }
  try {
    const request = requestOf(guest, place.to, settings.insecure, options);
    const observation = await start(place.operator, request);
    if ('outcome' in observation) return await print(observation);
    interrupts.cancelWith(() => place.operator.cancel(observation.summary.id));
    return await follow(observation, {
      ...output,
      ...(eventsFile === undefined ? {} : { eventsFile }),
      onDisplay: (display) => interrupts.speakThrough(display),
    });
  } finally {
    await place.close();
  }
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

/** The first SIGINT, SIGTERM or SIGHUP cancels; later ones are told that it is being done. */
class Interrupts {
  /** Resolves at the first one. */
  readonly first: Promise<'interrupted'>;
  readonly #context: CommandContext;
  readonly #stop: () => void;
  #times = 0;
  #cancel: (() => Promise<unknown>) | undefined;
  #display: Display | undefined;
  #interrupted: (value: 'interrupted') => void = () => {};

  constructor(context: CommandContext) {
    this.#context = context;
    this.first = new Promise((resolve) => {
      this.#interrupted = resolve;
    });
    this.#stop = onInterrupt(context.io.signals, (times) => this.#heard(times));
  }

  /** A cancellation that was asked for before there was anything to cancel is done now. */
  cancelWith(cancel: () => Promise<unknown>): void {
    this.#cancel = cancel;
    if (this.#times > 0) this.#cancelNow(cancel);
  }

  speakThrough(display: Display): void {
    this.#display = display;
  }

  close(): void {
    this.#stop();
  }

  #heard(times: number): void {
    this.#times = times;
    this.#interrupted('interrupted');
    if (times > 1) {
      this.#say(
        'still cancelling: the outcome is not known yet, and leaving now would not make it any sooner',
      );
    } else if (this.#cancel !== undefined) {
      this.#cancelNow(this.#cancel);
    }
  }

  #cancelNow(cancel: () => Promise<unknown>): void {
    this.#say('cancelling; waiting for the outcome');
    cancel().catch((error: unknown) => {
      this.#say(`cannot cancel: ${error instanceof Error ? error.message : String(error)}`);
    });
  }

  #say(text: string): void {
    if (this.#display === undefined) this.#context.io.stderr.write(`${text}\n`);
    else this.#display.say(text);
  }
}
