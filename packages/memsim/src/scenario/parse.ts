/** From a scenario's text to what the simulator takes. Reads no files itself: those that a scenario names come in. */
import type { strategies } from '@vmferry/engine/options';
import { CheckedDocument } from '../checked-document.ts';
import { libraryGuest, libraryNames } from '../guest-file/library.ts';
import { type GuestFile, guestFileSchema, type Workload as WorkloadInFile } from '../guest-file/schema.ts';
import type { Costs } from '../simulator/costs.ts';
import { resolveWorkload } from '../simulator/dirty/regions.ts';
import type { LinkConditions } from '../simulator/link.ts';
import type { Simulation } from '../simulator/model.ts';
import type { Trace } from '../workload/trace.ts';
import { costsNamed } from './costs.ts';
import { ScenarioError } from './errors.ts';
import {
  type LinkInScenario,
  ownCostsSchema,
  type ScenarioFile,
  type SweepFile,
  scenarioSchema,
  sweepSchema,
} from './schema.ts';

/** What a scenario names besides itself. Paths are as the scenario has them. */
export interface Surroundings {
  /** Throws `GuestFileError` or `ScenarioError`. */
  readonly guestFile: (path: string) => GuestFile;
  readonly trace: (path: string, guest: GuestFile) => Trace;
}

export interface Scenario {
  readonly name: string;
  readonly file: ScenarioFile;
  readonly simulation: Simulation;
}

export interface SweepAxes {
  readonly strategy: (typeof strategies)[number];
  readonly guest: string;
  readonly link: string;
  readonly memoryBytes: number;
}

export interface SweepRun {
  readonly axes: SweepAxes;
  readonly simulation: Simulation;
}

const DEFAULT_LATENCY_MS = 0.1;
const DEFAULT_RAN_MS = 30_000;
const DEFAULT_WINDOW = 16 * 1024 * 1024;
/** What Linux lets one TCP connection hold by itself: 4 MiB to send and 6 MiB received. */
const SOCKET_BUFFERS = 10 * 1024 * 1024;
const DEFAULT_MAX_DOWNTIME_MS = 300;
/** More runs than this are a mistake. */
const MOST_RUNS = 100_000;
const MAX_TEXT = 4 * 1024 * 1024;

/** @throws ScenarioError, GuestFileError */
export function parseScenario(text: string, file: string, surroundings: Surroundings): Scenario {
  const document = documentOf(text, file, 'scenario.schema.json');
  checkGuest(document, field(document.content, 'guest'), ['guest']);
  checkCosts(document);
  const scenario = document.check(scenarioSchema, document.content);
  const guest = guestOf(scenario.guest, surroundings);
  const name = scenario.name ?? guest.name;
  return { name, file: scenario, simulation: simulationOf(scenario, guest, surroundings, file) };
}

/** @throws ScenarioError, GuestFileError */
export function parseSweep(
  text: string,
  file: string,
  surroundings: Surroundings,
): { readonly name: string; readonly file: SweepFile; readonly runs: readonly SweepRun[] } {
  const document = documentOf(text, file, 'sweep.schema.json');
  const guests = field(document.content, 'guests');
  if (Array.isArray(guests))
    for (const [index, guest] of guests.entries()) checkGuest(document, guest, ['guests', index]);
  checkCosts(document);
  // A record of the schema's would leave it out without a word.
  if (Object.hasOwn(field(document.content, 'links') ?? {}, '__proto__'))
    throw document.fault(['links', '__proto__'], 'no link can be called that: choose another name');
  const sweep = document.check(sweepSchema, document.content);
  const loaded = sweep.guests.map((guest) => guestOf(guest, surroundings));
  const names = loaded.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw new ScenarioError(`${file}: two guests are called ${twice}`, 'Give each a name of its own.');
  const links = Object.entries(sweep.links);
  const count = sweep.strategies.length * loaded.length * links.length * (sweep.sizes?.length ?? 1);
  if (count > MOST_RUNS)
    throw new ScenarioError(`${file}: ${count} runs are more than ${MOST_RUNS}`, 'Split the sweep.');
  const runs: SweepRun[] = [];
  for (const guest of loaded) {
    for (const memory of sweep.sizes ?? [undefined]) {
      for (const [linkName, link] of links) {
        for (const strategy of sweep.strategies) {
          const scenario = scenarioSchema.parse({ guest: 'idle', link: { bandwidth: '1gbit' } });
          const simulation = simulationOf(
            {
              ...scenario,
              memory,
              link,
              ran: sweep.ran,
              costs: sweep.costs,
              migration: { ...sweep.migration, strategy },
              hypervisor: sweep.hypervisor,
              seed: sweep.seed,
            },
            guest,
            surroundings,
            file,
          );
          const { memoryBytes } = simulation.guest;
          runs.push({ axes: { strategy, guest: guest.name, link: linkName, memoryBytes }, simulation });
        }
      }
    }
  }
  return { name: sweep.name ?? 'sweep', file: sweep, runs };
}

function documentOf(text: string, file: string, schema: string): CheckedDocument {
  return new CheckedDocument(text, {
    file,
    most: MAX_TEXT,
    needed: 'a file of keys and values is needed',
    error: (message, cause) =>
      new ScenarioError(
        message,
        `Correct the file; docs/memsim.md has all keys, ${schema} has them for editors.`,
        cause === undefined ? {} : { cause },
      ),
  });
}

/** In a union its faults would come without their places. */
function checkGuest(document: CheckedDocument, guest: unknown, at: readonly PropertyKey[]): void {
  if (typeof guest === 'string' && libraryGuest(guest) === undefined)
    throw document.fault(
      at,
      `the library has no guest ${JSON.stringify(guest)}; it has ${libraryNames.join(', ')}; one from a file is {file: PATH}`,
    );
  if (typeof guest !== 'object' || guest === null || 'file' in guest) return;
  document.check(guestFileSchema, guest, at);
}

/** The same. */
function checkCosts(document: CheckedDocument): void {
  const costs = field(document.content, 'costs');
  if (typeof costs === 'object' && costs !== null) document.check(ownCostsSchema, costs, ['costs']);
}

function field(content: unknown, key: string): unknown {
  return typeof content === 'object' && content !== null
    ? (content as Record<string, unknown>)[key]
    : undefined;
}

function guestOf(guest: ScenarioFile['guest'], { guestFile }: Surroundings): GuestFile {
  if (typeof guest !== 'string') return 'file' in guest ? guestFile(guest.file) : guest;
  const found = libraryGuest(guest);
  if (found === undefined) throw new Error(`${guest} was looked up before`);
  return found;
}

function simulationOf(
  scenario: ScenarioFile,
  guest: GuestFile,
  { trace }: Surroundings,
  file: string,
): Simulation {
  const sized = scenario.memory === undefined ? guest : resized(guest, scenario.memory, file);
  const { migration, policy, hypervisor, postcopy, link } = scenario;
  return {
    guest: {
      name: guest.name,
      memoryBytes: sized.memory,
      vcpus: sized.vcpus,
      content: { ...sized.content, textLeft: scenario.textLeft },
      workload: resolveWorkload(sized.workload, (path) => trace(path, sized)),
      ranSeconds: (scenario.ran ?? (hasTrace(sized.workload) ? 0 : DEFAULT_RAN_MS)) / 1000,
      dirtyLog: hypervisor.dirtyLog,
      oneLiveRound: hypervisor.oneLiveRound,
    },
    link: linkOf(link),
    costs: costsOf(scenario.costs),
    request: {
      strategy: migration.strategy ?? 'auto',
      maxDowntimeMs: migration.maxDowntime ?? DEFAULT_MAX_DOWNTIME_MS,
      ...(migration.deadline === undefined ? {} : { deadlineMs: migration.deadline }),
      ...(migration.headStart === undefined ? {} : { headStartMs: migration.headStart }),
      ...(migration.onStall === undefined ? {} : { onStall: migration.onStall }),
      maxBandwidth: migration.maxBandwidth ?? 0,
      streams: migration.streams ?? 1,
      compress: migration.compress ?? 'auto',
    },
    adaptiveRate:
      policy.kind === 'adaptive-rate' ? { minRate: policy.minRate, maxRate: policy.maxRate } : undefined,
    postcopy: {
      channel: postcopy.channel,
      prepaging: postcopy.prepaging,
      queuedBytes: postcopy.queued ?? SOCKET_BUFFERS,
    },
    postcopyObstacle: hypervisor.postcopyObstacle,
    seed: scenario.seed,
  };
}

/** A trace is played once: what was played before the migration is over. */
function hasTrace(workload: WorkloadInFile): boolean {
  switch (workload.kind) {
    case 'trace':
      return true;
    case 'phases':
      return workload.phases.some((phase) => hasTrace(phase.workload));
    case 'mix':
      return workload.parts.some(hasTrace);
    default:
      return false;
  }
}

function resized(guest: GuestFile, memory: number, file: string): GuestFile {
  const parsed = guestFileSchema.safeParse({ ...unparsed(guest), memory: `${memory}B` });
  if (parsed.success) return parsed.data;
  const why = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ');
  throw new ScenarioError(
    `${file}: guest ${guest.name} cannot have ${memory / 1024 ** 2} MiB: ${why}`,
    'Choose another size, or leave the guest out.',
  );
}

/** A guest as its file might have it: all amounts are plain numbers, which the schema takes as well. */
function unparsed(guest: GuestFile): Record<string, unknown> {
  return JSON.parse(JSON.stringify(guest)) as Record<string, unknown>;
}

function linkOf(link: LinkInScenario): Simulation['link'] {
  let current = conditionsOf(link);
  const initial = current;
  const changes = [...link.changes]
    .sort((a, b) => a.at - b.at)
    .map((change) => {
      current = conditionsOf(change, current);
      return { atMs: change.at, conditions: current };
    });
  return { initial, changes, windowBytes: link.windowPerStream ?? DEFAULT_WINDOW };
}

function conditionsOf(
  link: Pick<LinkInScenario, 'latency' | 'loss' | 'competing'> & { bandwidth?: number | undefined },
  before?: LinkConditions,
): LinkConditions {
  const { bandwidth, latency, loss, competing } = link;
  return {
    bandwidth: bandwidth ?? before?.bandwidth ?? 0,
    latencyMs: latency ?? before?.latencyMs ?? DEFAULT_LATENCY_MS,
    loss: loss ?? before?.loss ?? 0,
    otherBytesPerSec: competing?.rate ?? before?.otherBytesPerSec ?? 0,
    otherStreams: competing?.streams ?? before?.otherStreams ?? 0,
  };
}

function costsOf(costs: ScenarioFile['costs']): Costs {
  if (typeof costs === 'string') return costsNamed(costs);
  const { like, ...own } = costs;
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined));
  return { ...costsNamed(like), ...given };
}
