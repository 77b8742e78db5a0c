/** `vmferry plan`: measures a guest and a link, simulates every strategy, and says which to choose. Touches nothing. */
import { defaultLimits, readConfigFile } from '@vmferry/agent-core/config';
import { fromWireError } from '@vmferry/agent-core/wire-errors';
import { POSTCOPY_BATCH, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { GuestError, MigrationError } from '@vmferry/engine/errors';
import type { GuestDescription, SourceGuest, SourcePlan } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { type Measured, planned } from '@vmferry/memsim/forecast/plan';
import { forecasts, recommend } from '@vmferry/memsim/forecast/strategies';
import type { Content } from '@vmferry/memsim/simulator/content';
import type { askDestination } from '@vmferry/source-agent/ask-destination';
import type { DestinationOptions } from '@vmferry/source-agent/destination';
import type { LinkMeasurement } from '@vmferry/source-agent/link-probe';
import { managedPlan } from '@vmferry/source-agent/managed-plan';
import { PeerError, WireError } from '@vmferry/wire/errors';
import type { CommandContext } from '../context.ts';
import { write } from '../io.ts';
import { usageError } from '../reports.ts';
import { type MigrateOptions, requestOf } from '../request.ts';
import { type HostOptions, loadSettings } from '../settings.ts';
import { loadSimulated, resolveGuest } from '../simulated.ts';
import { formatDuration, formatRate, formatSize } from '../units.ts';
import { renderForecasts } from './tables.ts';

type AsForMigrate =
  | 'to'
  | 'maxDowntime'
  | 'deadline'
  | 'maxBandwidth'
  | 'streams'
  | 'compress'
  | 'onStall'
  | 'destGuest'
  | 'destXml'
  | 'json';

export interface PlanOptions extends HostOptions, Pick<MigrateOptions, AsForMigrate> {
  readonly bandwidth?: number;
  readonly latency?: number;
  readonly copyStorage?: MigrateOptions['copyStorage'];
}

/** Where the figures come from; a test has its own. */
export interface PlanParts {
  readonly guest: (uri: string, options: PlanOptions, context: CommandContext) => Promise<MeasuredGuest>;
  readonly measureLink: (options: DestinationOptions) => Promise<LinkMeasurement>;
  /** What the destination says to the guest, where the guest's driver has something to tell it. */
  readonly ask: typeof askDestination;
}

/** What is in the way of a migration, and on which side that was found. */
interface Obstacle {
  readonly side: 'source' | 'dest';
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** A simulated guest runs for as long as it is measured, on a host of its own. */
export interface MeasuredGuest
  extends Pick<SourceGuest, 'describe' | 'blockers' | 'measureDirtyRate' | 'preflight'> {
  /** What its memory holds, where its file says so. */
  readonly content?: Content;
  close(): Promise<void>;
}

/** A guest's dirty pages are counted for so many seconds, and then for so many. */
const SHORT_SECONDS = 1;
const LONG_SECONDS = 5;
const DEFAULT_ROUND_TRIP_MS = 0.2;

const PARTS: PlanParts = {
  guest: async (uri, options, { io }) => {
    const settings = await loadSettings(options, io, 'cli');
    const { guest, definition } = await resolveGuest(uri, { embedded: true });
    const configured = await loadSimulated([], options, settings, 'cli');
    const { sourceGuests } = await import('@vmferry/source-agent/guests');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const simulation = new SimulationHost(definition ? [...configured, definition] : configured);
    const content = definition?.file.content;
    const driver = await sourceGuests(simulation, {
      libvirt: settings.libvirt,
      guests: settings.file.guests,
    })(guest);
    return {
      ...(content === undefined ? {} : { content }),
      ...(driver.preflight === undefined ? {} : { preflight: (plan: SourcePlan) => driver.preflight!(plan) }),
      describe: () => driver.describe(),
      blockers: (plan) => driver.blockers(plan),
      measureDirtyRate: (seconds) => driver.measureDirtyRate(seconds),
      async close() {
        await driver.close();
        await simulation.close();
      },
    };
  },
  measureLink: async (options) => (await import('@vmferry/source-agent/link-probe')).measureLink(options),
  ask: async (options, question) =>
    (await import('@vmferry/source-agent/ask-destination')).askDestination(options, question),
};

/** Gives the exit status: 0; 2 where the guest or the link could not be measured, by an error. */
export async function runPlan(
  uri: string,
  options: PlanOptions,
  context: CommandContext,
  parts: PlanParts = PARTS,
): Promise<number> {
  const { io } = context;
  if (options.to === undefined && options.bandwidth === undefined)
    throw usageError('name the destination agent with --to, or what the link carries with --bandwidth');
  if (options.bandwidth === 0) throw usageError('--bandwidth: a link that carries nothing moves no guest');
  // What is wrong with the goals is told before anything is measured.
  const request = await requestedOf(uri, options);
  const link = await measuredLink(options, context, parts);
  const seen = await measuredGuest(uri, request, options, context, parts);
  const measured: Measured = { ...seen.measured, ...link };
  const simulation = planned(measured, request);
  const all = forecasts(simulation);
  const recommended = recommend(all);
  const simulated = [...new Set(all.flatMap(({ result }) => result.report.notes))];
  const notes = [...obstacleNotes(seen.obstacles), ...seen.notes, ...notesOf(measured), ...simulated];
  const json = {
    schema: 1,
    guest: uri,
    measured: {
      ...measured.description,
      dirty: measured.dirty ?? null,
      ...link,
      workload: simulation.guest.workload,
    },
    strategies: all.map(({ strategy, obstacle, result }) => ({
      strategy,
      obstacle: obstacle ?? null,
      report: result.report,
    })),
    recommended,
    obstacles: seen.obstacles,
    notes,
  };
  const { memoryBytes, vcpus } = measured.description;
  const dirty = (measured.dirty ?? []).map(
    ({ seconds, pages }) => `${formatSize(pages * PAGE_BYTES)} in ${formatDuration(seconds * 1000)}`,
  );
  const text =
    `guest ${uri}: ${formatSize(memoryBytes)}, ${vcpus} vCPUs, ` +
    `${dirty.length === 0 ? 'dirty rate not known' : `dirties ${dirty.join(', ')}`}\n` +
    `link: ${formatRate(link.bytesPerSec)}, round trip ${formatDuration(link.roundTripMs)}` +
    `${options.bandwidth === undefined ? '' : ' (given, not measured)'}\n\n${renderForecasts(all)}\n` +
    `${recommended.strategy}: ${recommended.why}\n${notes.map((note) => `note: ${note}\n`).join('')}`;
  await write(io.stdout, options.json === true ? `${JSON.stringify(json)}\n` : text);
  return 0;
}

function obstacleNotes(obstacles: readonly Obstacle[]): string[] {
  return obstacles.map(({ message, remedy }) => `As it is, the guest cannot be moved: ${message}. ${remedy}`);
}

function notesOf({ dirty, content }: Measured): string[] {
  return [
    ...(dirty === undefined
      ? ['The hypervisor does not tell how fast the guest dirties memory: it is taken for one that rests.']
      : ['What the guest dirties is taken for one working set, written at random.']),
    ...(content === undefined
      ? ['What memory holds is not known: 30 % zeroes, 50 % that packs to half, 20 % that does not pack.']
      : []),
    'Hosts are taken for machines of today; `vmferry sim` takes what yours need.',
  ];
}

async function measuredLink(
  options: PlanOptions,
  context: CommandContext,
  { measureLink }: PlanParts,
): Promise<{ readonly roundTripMs: number; readonly bytesPerSec: number }> {
  const given = options.latency === undefined ? undefined : 2 * options.latency;
  if (options.bandwidth !== undefined)
    return { roundTripMs: given ?? DEFAULT_ROUND_TRIP_MS, bytesPerSec: options.bandwidth };
  const { roundTripMs, bytesPerSec } = await asked(async () =>
    measureLink(await destinationOf(options, context)),
  );
  if (bytesPerSec === undefined)
    throw usageError('the destination agent is of a version that knows no probe: give --bandwidth');
  return { roundTripMs: given ?? roundTripMs, bytesPerSec };
}

async function destinationOf(options: PlanOptions, { io }: CommandContext): Promise<DestinationOptions> {
  const { insecure, tls, token } = await loadSettings(options, io, 'cli');
  return {
    url: options.to!,
    insecure,
    limits: defaultLimits(),
    maxBandwidth: 0,
    ...(tls === undefined ? {} : { tls }),
    ...(token === undefined ? {} : { token }),
  };
}

/** Errors of the wire, as a migration tells them. */
async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof PeerError) throw refusedBy(cause);
    if (!(cause instanceof WireError)) throw cause;
    throw fromWireError(cause, { side: 'cli', phase: 'connect', guestRunsOn: 'source' });
  }
}

function refusedBy(cause: PeerError): MigrationError {
  const { message, remedy } = cause;
  return new MigrationError(
    message,
    { code: 'E_REFUSED', side: 'dest', phase: 'connect', guestRunsOn: 'source', remedy },
    { cause },
  );
}

interface Seen {
  readonly measured: Pick<Measured, 'description' | 'dirty' | 'postcopyObstacle' | 'content'>;
  readonly obstacles: readonly Obstacle[];
  readonly notes: readonly string[];
}

async function measuredGuest(
  uri: string,
  request: MigrateRequest,
  options: PlanOptions,
  context: CommandContext,
  parts: PlanParts,
): Promise<Seen> {
  try {
    const guest = await parts.guest(uri, options, context);
    try {
      const description = await guest.describe();
      const blockers = await guest.blockers(planOf(false, request));
      const [obstacle] = blockers.length > 0 ? [] : await guest.blockers(planOf(true, request));
      const there = await preflight({ guest, description, request }, options, context, parts);
      const short = await guest.measureDirtyRate(SHORT_SECONDS);
      const long = short === undefined ? undefined : await guest.measureDirtyRate(LONG_SECONDS);
      const dirty =
        short === undefined || long === undefined
          ? undefined
          : ([
              { seconds: SHORT_SECONDS, pages: (short * SHORT_SECONDS) / PAGE_BYTES },
              { seconds: LONG_SECONDS, pages: (long * LONG_SECONDS) / PAGE_BYTES },
            ] as const);
      return {
        measured: {
          description,
          dirty,
          postcopyObstacle: obstacle?.message ?? there.postcopyObstacle,
          ...(guest.content === undefined ? {} : { content: guest.content }),
        },
        obstacles: [...blockers.map((blocker) => obstacleOn('source', blocker)), ...there.obstacles],
        notes: there.notes,
      };
    } finally {
      await guest.close();
    }
  } catch (cause) {
    if (!(cause instanceof GuestError)) throw cause;
    const { code, message, remedy } = cause;
    throw new MigrationError(
      message,
      { code, side: 'source', phase: 'preflight', guestRunsOn: 'source', remedy },
      { cause },
    );
  }
}

/** What a migration would be asked for. Rejects with `E_USAGE`. */
async function requestedOf(uri: string, options: PlanOptions): Promise<MigrateRequest> {
  const { to = 'ws://127.0.0.1:0', destXml, copyStorage = 'none', ...others } = options;
  const xml = destXml === undefined ? undefined : await readConfigFile(destXml, 'domain', 'cli', 'E_USAGE');
  return requestOf(uri, to, options.insecure === true, {
    ...others,
    ...{ strategy: 'auto', copyStorage, logLevel: 'silent' },
    ...(xml === undefined ? {} : { destXml: xml }),
  });
}

/** Both sides' preflight, by post-copy, of which pre-copy needs a part. */
async function preflight(
  {
    guest,
    description,
    request,
  }: {
    readonly guest: MeasuredGuest;
    readonly description: GuestDescription;
    readonly request: MigrateRequest;
  },
  options: PlanOptions,
  context: CommandContext,
  { ask }: PlanParts,
): Promise<{
  readonly obstacles: readonly Obstacle[];
  readonly notes: readonly string[];
  readonly postcopyObstacle: string | undefined;
}> {
  const own = await guest.preflight?.(planOf(true, request));
  if (own === undefined || options.to === undefined) {
    return { obstacles: [], notes: own?.notes ?? [], postcopyObstacle: undefined };
  }
  const question = { description: { ...description, preflight: own.facts }, request, postcopy: true };
  const answer = await asked(async () => ask(await destinationOf(options, context), question));
  const reasons = answer.ok ? [] : answer.reasons;
  const isPostcopy = ({ code }: GuestError) => code === 'E_NO_USERFAULTFD';
  return {
    obstacles: reasons.filter((reason) => !isPostcopy(reason)).map((reason) => obstacleOn('dest', reason)),
    notes: [...own.notes, ...answer.notes],
    postcopyObstacle: reasons.find(isPostcopy)?.message,
  };
}

function obstacleOn(side: Obstacle['side'], { code, message, remedy }: GuestError): Obstacle {
  return { side, code, message, remedy };
}

function planOf(postcopy: boolean, request: MigrateRequest): SourcePlan {
  const limits = defaultLimits();
  return {
    postcopy,
    throttle: false,
    batches: { precopy: precopyBatch(limits.maxFrameBytes), postcopy: POSTCOPY_BATCH },
    bufferBytes: bytes(limits.bufferBytes),
    managed: managedPlan(request),
  };
}
