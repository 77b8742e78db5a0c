/** From a guest's URI to its driver. */

import type { LibvirtSettings } from '@vmferry/agent-core/config';
import { openGuest } from '@vmferry/agent-core/guest-schemes';
import type { SourceGuest } from '@vmferry/engine/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { LibvirtSourceGuest } from '@vmferry/hypervisor/libvirt/source-guest';
import { QemuSourceGuest } from '@vmferry/hypervisor/qemu/source-guest';
import type { SimulationHost } from '@vmferry/memsim/guest/host';

export type SourceGuestFactory = (uri: string) => Promise<SourceGuest>;

/** `simulation` has the simulated guests of this host. */
export function sourceGuests(simulation: SimulationHost, libvirt?: LibvirtSettings): SourceGuestFactory {
  return (uri) =>
    openGuest<SourceGuest>(uri, {
      libvirt: (name) => LibvirtSourceGuest.connect(name, libvirtOptions(libvirt)),
      qemu: (path) => QemuSourceGuest.connect(path),
      sim: (name) => simulation.source(name),
    });
}
