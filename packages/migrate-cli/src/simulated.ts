/** Simulated guests as the command line and the configuration name them. */
import { dirname, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { configError } from '@vmferry/agent-core/config';
import type { Side } from '@vmferry/engine/errors';
import { GuestFileError } from '@vmferry/memsim/guest-file/errors';
import { isGuestPath, loadGuest } from '@vmferry/memsim/guest-file/load';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import type { SimulatedOnHost } from './embedded.ts';
import { usageError } from './reports.ts';
import type { MigrateOptions } from './request.ts';
import type { HostOptions, HostSettings } from './settings.ts';

const SCHEME = 'sim:';

/** The guests of `--simulate` and of the configuration. Rejects with `MigrationError` `E_CONFIG`. */
export async function loadSimulated(
  named: readonly string[],
  { config }: HostOptions,
  { file }: HostSettings,
  side: Side,
): Promise<readonly GuestDefinition[]> {
  const loaded = await loadAll(named, file.simulate, config, side);
  refuseTwice(loaded, side);
  return loaded;
}

/**
 * Those of an agent of both roles, where `--start` names what runs there from the beginning. A guest may be named by
 * both: hosts can share a configuration. Rejects with `MigrationError` `E_CONFIG`.
 */
export async function loadSimulatedHost(
  named: { readonly simulate?: readonly string[]; readonly start?: readonly string[] },
  { config }: HostOptions,
  { file }: HostSettings,
): Promise<SimulatedOnHost> {
  const simulated = await loadAll(named.simulate ?? [], file.simulate, config, 'cli');
  const started = await loadAll(named.start ?? [], file.start, config, 'cli');
  const admitted = simulated.filter((one) => !started.some((other) => isDeepStrictEqual(one, other)));
  refuseTwice([...admitted, ...started], 'cli');
  return { admitted, started };
}

/** Paths of the command line are relative to where it was typed, those of the file to the file. */
function loadAll(
  named: readonly string[],
  configured: readonly string[],
  config: string | undefined,
  side: Side,
): Promise<GuestDefinition[]> {
  const guests = [
    ...named.map((guest) => ({ guest, directory: process.cwd() })),
    ...configured.map((guest) => ({ guest, directory: dirname(resolve(config ?? '.')) })),
  ];
  return Promise.all(guests.map(({ guest, directory }) => load(guest, directory, side)));
}

function refuseTwice(loaded: readonly GuestDefinition[], side: Side): void {
  const names = loaded.map((definition) => definition.file.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return;
  throw configError(
    `two simulated guests of the name "${twice}"`,
    'Give one of them another name in its guest file.',
    side,
  );
}

/** The guest as both agents know it, and the simulated ones that agents in this process are to have. */
export interface Guests {
  readonly guest: string;
  readonly destGuest?: string;
  readonly simulatedHere: {
    readonly source: readonly GuestDefinition[];
    readonly dest: readonly GuestDefinition[];
  };
}

export async function findGuests(
  guest: string,
  options: MigrateOptions,
  settings: HostSettings,
): Promise<Guests> {
  const source = await resolveGuest(guest, { embedded: options.from === undefined });
  const dest =
    options.destGuest === undefined
      ? undefined
      : await resolveGuest(options.destGuest, { embedded: options.to === undefined });
  const configured = await loadSimulated([], options, settings, 'cli');
  // What the command line says of a guest counts for more.
  const and = (definition: GuestDefinition | undefined): readonly GuestDefinition[] =>
    definition ? [...configured, definition] : configured;
  return {
    guest: source.guest,
    ...(dest === undefined ? {} : { destGuest: dest.guest }),
    simulatedHere: { source: and(source.definition), dest: and((dest ?? source).definition) },
  };
}

interface NamedGuest {
  /** The URI as agents know it. */
  readonly guest: string;
  /** Of a simulated guest that an agent in this process is to have. */
  readonly definition?: GuestDefinition;
}

/**
 * A guest of the command line. Files are read here: agents are never given a path.
 * `embedded`: the agent that has the guest runs inside the command.
 */
export async function resolveGuest(uri: string, { embedded }: { embedded: boolean }): Promise<NamedGuest> {
  if (!uri.startsWith(SCHEME)) return { guest: uri };
  const name = uri.slice(SCHEME.length);
  if (!embedded) {
    if (!isGuestPath(name)) return { guest: uri };
    throw usageError(
      `${uri}: an agent elsewhere does not read this guest file: give it to the agent with --simulate, and name the guest here`,
    );
  }
  const definition = await load(name, process.cwd(), 'cli');
  return { guest: `${SCHEME}${definition.file.name}`, definition };
}

async function load(guest: string, directory: string, side: Side): Promise<GuestDefinition> {
  try {
    return await loadGuest(guest, directory);
  } catch (error) {
    if (!(error instanceof GuestFileError)) throw error;
    throw configError(error.message, error.remedy, side, { cause: error });
  }
}
