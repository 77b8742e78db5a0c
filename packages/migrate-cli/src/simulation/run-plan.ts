/** `vmferry plan`: measures a guest and a link, simulates every strategy, and says which to choose. Touches nothing. */
import { defaultLimits } from '@vmferry/agent-core/config';
import { fromWireError } from '@vmferry/agent-core/wire-errors';
import { POSTCOPY_BATCH, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { GuestError, MigrationError } from '@vmferry/engine/errors';
import type { SourceGuest, SourcePlan } from '@vmferry/engine/guest';
import { bytes, PAGE_BYTES } from '@vmferry/engine/units';
import { type Measured, planned } from '@vmferry/memsim/forecast/plan';
import { forecasts, recommend } from '@vmferry/memsim/forecast/strategies';
import type { DestinationOptions } from '@vmferry/source-agent/destination';
import type { LinkMeasurement } from '@vmferry/source-agent/link-probe';
import { PeerError, WireError } from '@vmferry/wire/errors';
import type { CommandContext } from '../context.ts';
import { write } from '../io.ts';
import { usageError } from '../reports.ts';
import type { MigrateOptions } from '../request.ts';
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
  | 'json';

export interface PlanOptions extends HostOptions, Pick<MigrateOptions, AsForMigrate> {
  readonly bandwidth?: number;
  readonly latency?: number;
}

/** Where the figures come from; a test has its own. */
export interface PlanParts {
  readonly guest: (uri: string, options: PlanOptions, context: CommandContext) => Promise<MeasuredGuest>;
  readonly measureLink: (options: DestinationOptions) => Promise<LinkMeasurement>;
}

/** A simulated guest runs for as long as it is measured, on a host of its own. */
export interface MeasuredGuest extends Pick<SourceGuest, 'describe' | 'blockers' | 'measureDirtyRate'> {
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
    const driver = await sourceGuests(simulation)(guest);
    return {
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
  const link = await measuredLink(options, context, parts);
  const seen = await measuredGuest(uri, options, context, parts);
  const measured: Measured = { ...seen.measured, ...link };
  const request = {
    strategy: 'auto',
    maxDowntimeMs: options.maxDowntime,
    maxBandwidth: options.maxBandwidth ?? 0,
    streams: options.streams,
    compress: options.compress,
    ...(options.deadline === undefined ? {} : { deadlineMs: options.deadline }),
    ...(options.onStall === undefined ? {} : { onStall: options.onStall }),
  } as const;
  const simulation = planned(measured, request);
  const all = forecasts(simulation);
  const recommended = recommend(all);
  const notes = notesOf(measured, seen.blockers);
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

function notesOf({ dirty, content }: Measured, blockers: readonly string[]): string[] {
  return [
    ...blockers.map((blocker) => `As it is, the guest cannot be moved: ${blocker}.`),
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
  { io }: CommandContext,
  { measureLink }: PlanParts,
): Promise<{ readonly roundTripMs: number; readonly bytesPerSec: number }> {
  const given = options.latency === undefined ? undefined : 2 * options.latency;
  if (options.bandwidth !== undefined)
    return { roundTripMs: given ?? DEFAULT_ROUND_TRIP_MS, bytesPerSec: options.bandwidth };
  const { insecure, tls, token } = await loadSettings(options, io, 'cli');
  try {
    const { roundTripMs, bytesPerSec } = await measureLink({
      url: options.to!,
      insecure,
      limits: defaultLimits(),
      maxBandwidth: 0,
      ...(tls === undefined ? {} : { tls }),
      ...(token === undefined ? {} : { token }),
    });
    if (bytesPerSec === undefined)
      throw usageError('the destination agent is of a version that knows no probe: give --bandwidth');
    return { roundTripMs: given ?? roundTripMs, bytesPerSec };
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

async function measuredGuest(
  uri: string,
  options: PlanOptions,
  context: CommandContext,
  parts: PlanParts,
): Promise<{
  readonly measured: Pick<Measured, 'description' | 'dirty' | 'postcopyObstacle'>;
  readonly blockers: readonly string[];
}> {
  try {
    const guest = await parts.guest(uri, options, context);
    try {
      const description = await guest.describe();
      const blockers = await guest.blockers(planOf(false));
      const [obstacle] = blockers.length > 0 ? [] : await guest.blockers(planOf(true));
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
        measured: { description, dirty, postcopyObstacle: obstacle?.message },
        blockers: blockers.map(({ message }) => message),
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

function planOf(postcopy: boolean): SourcePlan {
  const limits = defaultLimits();
  return {
    postcopy,
    throttle: false,
    batches: { precopy: precopyBatch(limits.maxFrameBytes), postcopy: POSTCOPY_BATCH },
    bufferBytes: bytes(limits.bufferBytes),
  };
}
