/**
 * A host of simulated guests: knows which guests it may have, and has those that run on it. What an agent is to a
 * hypervisor, by name.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest, SourceGuest } from '@vmferry/engine/guest';
import type { GuestDefinition } from '../workload/streams.ts';
import { type Residence, SimulatedDestGuest } from './dest-guest.ts';
import { SimulatedMachine } from './machine.ts';
import { SimulatedSourceGuest } from './source-guest.ts';

interface Resident {
  readonly machine: SimulatedMachine;
  state: Residence;
}

export interface SimulationHostOptions {
  /** Whether a guest that never was here is started when it is first asked for. By default yes. */
  readonly startsWhenAsked?: boolean;
}

export class SimulationHost {
  readonly #definitions: ReadonlyMap<string, GuestDefinition>;
  readonly #startsWhenAsked: boolean;
  readonly #residents = new Map<string, Resident>();
  /** Guests that left and were ended here. They may come back, and are never started again. */
  readonly #departed = new Set<string>();

  /** Guests of other names are refused. */
  constructor(definitions: Iterable<GuestDefinition>, options: SimulationHostOptions = {}) {
    this.#definitions = new Map([...definitions].map((definition) => [definition.file.name, definition]));
    this.#startsWhenAsked = options.startsWhenAsked ?? true;
  }

  /**
   * The guest of this name as one that is to leave.
   *
   * @throws GuestError E_GUEST_UNREACHABLE (it is not here), E_GUEST_BUSY (not all of it is)
   */
  async source(name: string): Promise<SourceGuest> {
    const definition = this.#definition(name);
    const resident = this.#residents.get(name) ?? (await this.#startAsked(name, definition));
    if (resident.state === 'coming-in') throw notYetHere(name);
    return new SimulatedSourceGuest({
      uri: `sim:${name}`,
      machine: resident.machine,
      left: () => resident.state === 'left',
      onLeft: async ({ destroy }) => {
        resident.state = 'left';
        if (!destroy) return;
        this.#departed.add(name);
        this.#forget(name, resident.machine);
        await resident.machine.end('it left this host');
      },
    });
  }

  /** @throws GuestError E_GUEST_UNREACHABLE */
  dest(name: string): Promise<DestGuest> {
    const definition = this.#definition(name);
    const guest = new SimulatedDestGuest({
      uri: `sim:${name}`,
      definition,
      occupied: () => this.#residents.get(name)?.state,
      onOpened: (machine) => this.#residents.set(name, { machine, state: 'coming-in' }),
      onArrived: (machine) => {
        const resident = this.#residents.get(name);
        if (resident?.machine === machine) resident.state = 'here';
      },
      onDiscarded: (machine) => this.#forget(name, machine),
    });
    return Promise.resolve(guest);
  }

  /**
   * Starts the guest here, unless it is here.
   *
   * @throws GuestError E_GUEST_UNREACHABLE
   */
  async start(name: string): Promise<void> {
    const definition = this.#definition(name);
    if (!this.#residents.has(name)) await this.#start(name, definition);
  }

  /** The guest's machine, while it is here. */
  machine(name: string): SimulatedMachine | undefined {
    return this.#residents.get(name)?.machine;
  }

  /** Ends all guests. */
  async close(): Promise<void> {
    const residents = [...this.#residents.values()];
    this.#residents.clear();
    await Promise.all(residents.map(({ machine }) => machine.end('its host was closed')));
  }

  /** Another one of its name may have come since. */
  #forget(name: string, machine: SimulatedMachine): void {
    if (this.#residents.get(name)?.machine === machine) this.#residents.delete(name);
  }

  #startAsked(name: string, definition: GuestDefinition): Promise<Resident> {
    if (this.#departed.has(name)) {
      throw new GuestError(
        'E_GUEST_UNREACHABLE',
        `sim:${name} has left this host and is not started again`,
        'move it from the host where it is now: `vmferry list` shows where this agent sent it',
      );
    }
    if (!this.#startsWhenAsked) {
      throw new GuestError(
        'E_GUEST_UNREACHABLE',
        `sim:${name} may come to this host, and has not yet`,
        'move it from the host where it is now; a host where it is to run from the beginning is told so with --start',
      );
    }
    return this.#start(name, definition);
  }

  async #start(name: string, definition: GuestDefinition): Promise<Resident> {
    const resident: Resident = { machine: SimulatedMachine.fresh(definition), state: 'here' };
    this.#residents.set(name, resident);
    await resident.machine.run();
    return resident;
  }

  #definition(name: string): GuestDefinition {
    const definition = this.#definitions.get(name);
    if (definition) return definition;
    const names = [...this.#definitions.keys()];
    throw new GuestError(
      'E_GUEST_UNREACHABLE',
      `there is no simulated guest "${name}" here${names.length > 0 ? `; there are ${names.join(', ')}` : ''}`,
      'give the agent the guest with --simulate NAME or --simulate FILE, or under "simulate" in its configuration',
    );
  }
}

function notYetHere(name: string): GuestError {
  return new GuestError(
    'E_GUEST_BUSY',
    `not all of sim:${name} is on this host: it is still coming in, or its link broke in post-copy`,
    'wait for that migration to end, and try again; if it ended without all of the memory, the guest is lost',
  );
}
