/** Two hosts of simulated guests with an agent each, joined over loopback; and guests that spoil a migration. */
import type { RunningMigration } from '@vmferry/agent-core/operations';
import type { DestGuestFactory } from '@vmferry/dest-agent/guests';
import type { DestGuest, PageBatch, SourceGuest, SourceItem } from '@vmferry/engine/guest';
import type { MigrateRequestInput } from '@vmferry/engine/options';
import type { SourceLimits } from '@vmferry/engine/switchover/source-state';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import type { SimulatedMachine } from '@vmferry/memsim/guest/machine';
import { guestFileSchema } from '@vmferry/memsim/guest-file/schema';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import type { SourceGuestFactory } from '@vmferry/source-agent/guests';
import { type Agents, startAgents } from '../migrate/agents.ts';

export function definition(file: Record<string, unknown> = {}): GuestDefinition {
  const defaults = {
    name: 'g',
    memory: '24MiB',
    vcpus: 2,
    workload: { kind: 'uniform', pagesPerSec: 2000 },
  };
  return { file: guestFileSchema.parse({ ...defaults, ...file }), traces: {} };
}

export interface Site {
  readonly here: SimulationHost;
  readonly there: SimulationHost;
  readonly agents: Agents;
  /** The guest's machine, wherever it is. */
  readonly source: SimulatedMachine;
  readonly dest: SimulatedMachine;
  migrate(request?: Partial<MigrateRequestInput>): RunningMigration;
  /** What was there is here from now on: the next migration goes back. */
  swap(): void;
  close(): Promise<void>;
}

export interface Spoil {
  readonly limits?: SourceLimits;
  readonly lastFiguresMs?: number;
  readonly stalledMs?: number;
  readonly source?: (guest: SourceGuest, machine: () => SimulatedMachine) => SourceGuest;
  readonly dest?: (guest: DestGuest) => DestGuest;
}

/** The guest runs on `here`. */
export async function startSite(guest: GuestDefinition, spoil: Spoil = {}): Promise<Site> {
  let here = new SimulationHost([guest]);
  let there = new SimulationHost([guest]);
  const { name } = guest.file;
  const same = <T>(it: T): T => it;
  const sources: SourceGuestFactory = async (uri) => {
    const found = await here.source(uri.slice(4));
    return (spoil.source ?? same)(found, () => here.machine(name)!);
  };
  const dests: DestGuestFactory = async (uri) => (spoil.dest ?? same)(await there.dest(uri.slice(4)));
  const agents = await startAgents(
    {},
    {
      sourceParts: {
        guests: sources,
        ...(spoil.limits ? { switchoverLimits: spoil.limits } : {}),
        ...(spoil.stalledMs === undefined ? {} : { stalledMs: spoil.stalledMs }),
        ...(spoil.lastFiguresMs === undefined ? {} : { lastFiguresMs: spoil.lastFiguresMs }),
      },
      destParts: { guests: dests },
    },
  );
  await here.source(name);
  return {
    get here() {
      return here;
    },
    get there() {
      return there;
    },
    agents,
    get source() {
      return here.machine(name)!;
    },
    get dest() {
      return there.machine(name)!;
    },
    swap: () => {
      [here, there] = [there, here];
    },
    migrate: (request = {}) => agents.migrate({ guest: `sim:${name}`, ...request }),
    async close() {
      await agents.close();
      await Promise.all([here.close(), there.close()]);
    },
  };
}

/** Resolves when the guest has written so many pages more than when this was called. */
export async function writesOn(machine: SimulatedMachine, more: number): Promise<void> {
  const sum = (): number => machine.generations.reduce((total, generation) => total + generation, 0);
  const goal = sum() + more;
  const deadline = performance.now() + 10_000;
  while (sum() < goal) {
    if (performance.now() > deadline) throw new Error(`the guest did not write ${more} pages within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A source guest whose items are changed on their way. */
export function withItems(
  guest: SourceGuest,
  change: (item: SourceItem) => SourceItem | undefined,
): SourceGuest {
  return overriding(guest, {
    open: async (plan, session) => {
      const items = await guest.open(plan, session);
      return (async function* () {
        for await (const item of items) {
          const changed = change(item);
          if (changed) yield changed;
        }
      })();
    },
  });
}

export function overriding<T extends object>(target: T, members: Partial<T>): T {
  return new Proxy(target, {
    get(it, key) {
      if (key in members) return Reflect.get(members, key);
      const member: unknown = Reflect.get(it, key, it);
      return typeof member === 'function' ? member.bind(it) : member;
    },
  });
}

/** Where the raw page's content begins in the batch; undefined when it is zero or not there. */
export function contentAt({ pages, kinds }: PageBatch, page: number): number | undefined {
  const index = pages.indexOf(page);
  if (index < 0 || kinds[index] !== 0) return undefined;
  return kinds.subarray(0, index).filter((kind) => kind === 0).length * 4096;
}
