/** From a guest's URI to its driver. */

import type { SourceAgentOptions } from '@vmferry/agent-core/config';
import { openGuest } from '@vmferry/agent-core/guest-schemes';
import type { SourceGuest } from '@vmferry/engine/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { LibvirtSourceGuest } from '@vmferry/hypervisor/libvirt/source/guest';
import { lookAtDomain, takenBackDomain } from '@vmferry/hypervisor/libvirt/source/left';
import {
  type Committed,
  lookAtCommitted,
  type TakenBack,
  takeBackLeft,
} from '@vmferry/hypervisor/qemu/left-source';
import { QemuSourceGuest } from '@vmferry/hypervisor/qemu/source-guest';
import type { SimulationHost } from '@vmferry/memsim/guest/host';

export type SourceGuestFactory = (uri: string) => Promise<SourceGuest>;

/** How the hypervisors of this host are found. */
type Hypervisors = Pick<SourceAgentOptions, 'guests' | 'libvirt'>;

/** `simulation` has the simulated guests of this host. */
export function sourceGuests(simulation: SimulationHost, host: Hypervisors = {}): SourceGuestFactory {
  return (uri) =>
    openGuest<SourceGuest>(uri, {
      libvirt: (name) => LibvirtSourceGuest.connect(name, libvirtOptions(host.libvirt)),
      qemu: (name) => QemuSourceGuest.connect(monitorOf(name, host)),
      sim: (name) => simulation.source(name),
    });
}

/** Gives up what a session of an agent before this one began. Simulated guests ended with their agent. */
export async function takeBackGuest(uri: string, session: string, host: Hypervisors): Promise<TakenBack> {
  return await openGuest<TakenBack>(uri, {
    libvirt: (name) => takenBackDomain(name, libvirtOptions(host.libvirt)),
    qemu: (name) => takeBackLeft(monitorOf(name, host), session),
    sim: () => Promise.resolve({ found: 'gone' }),
  });
}

/** Where a guest stands that a session of an agent before this one committed to its destination. */
export async function lookAtGuest(uri: string, session: string, host: Hypervisors): Promise<Committed> {
  return await openGuest<Committed>(uri, {
    libvirt: (name) => lookAtDomain(name, libvirtOptions(host.libvirt)),
    qemu: (name) => lookAtCommitted(monitorOf(name, host), session),
    sim: () => Promise.resolve({ found: 'gone' }),
  });
}

/** `name`: of a guest from the configuration, or a QMP socket. */
function monitorOf(name: string, { guests }: Hypervisors): string {
  return guests?.[name]?.qmp ?? name;
}
