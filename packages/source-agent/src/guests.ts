/** From a guest's URI to its driver. */
import { openGuest } from '@vmferry/agent-core/guest-schemes';
import type { SourceGuest } from '@vmferry/engine/guest';
import { QemuSourceGuest } from '@vmferry/hypervisor/qemu/source-guest';
import type { SimulationHost } from '@vmferry/memsim/guest/host';

export type SourceGuestFactory = (uri: string) => Promise<SourceGuest>;

/** `simulation` has the simulated guests of this host. */
export function sourceGuests(simulation: SimulationHost): SourceGuestFactory {
  return (uri) =>
    openGuest<SourceGuest>(uri, {
      qemu: (path) => QemuSourceGuest.connect(path),
      sim: (name) => simulation.source(name),
    });
}
