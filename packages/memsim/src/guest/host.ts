/**
 * A host of simulated guests: knows which guests it may have, and has those that run on it. What an agent is to a
 * hypervisor, by name.
 */
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest, SourceGuest } from '@vmferry/engine/guest';
import type { GuestDefinition } from '../workload/streams.ts';
import { SimulatedDestGuest } from './dest-guest.ts';
import { SimulatedMachine } from './machine.ts';
import { SimulatedSourceGuest } from './source-guest.ts';

interface Resident {
  readonly machine: SimulatedMachine;
  /** It runs elsewhere now and never again here. */
  left: boolean;
}

export class SimulationHost {
  readonly #definitions: ReadonlyMap<string, GuestDefinition>;
  readonly #residents = new Map<string, Resident>();

  /** Guests of other names are refused. */
  constructor(definitions: Iterable<GuestDefinition>) {
    this.#definitions = new Map([...definitions].map((definition) => [definition.file.name, definition]));
  }

  /**
   * The guest of this name, which is started if it does not run yet.
   *
   * @throws GuestError E_GUEST_UNREACHABLE
   */
  async source(name: string): Promise<SourceGuest> {
    const definition = this.#definition(name);
    const resident = this.#residents.get(name) ?? (await this.#start(name, definition));
    return new SimulatedSourceGuest({
      uri: `sim:${name}`,
      machine: resident.machine,
      left: () => resident.left,
      onLeft: async ({ destroy }) => {
        resident.left = true;
        if (!destroy) return;
        this.#residents.delete(name);
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
      busy: () => this.#residents.has(name),
      onOpened: (machine) => this.#residents.set(name, { machine, left: false }),
      onDiscarded: () => this.#residents.delete(name),
    });
    return Promise.resolve(guest);
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

  async #start(name: string, definition: GuestDefinition): Promise<Resident> {
    const resident: Resident = { machine: SimulatedMachine.fresh(definition), left: false };
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
