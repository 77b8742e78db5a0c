/** Which guests a peer may bring in, and how the agent gets hold of the hypervisor that takes them. */
import { matchesGlob } from 'node:path';
import type { DestAgentOptions } from '@vmferry/agent-core/config';
import { openGuest } from '@vmferry/agent-core/guest-schemes';
import { journalPath } from '@vmferry/agent-core/journal-file';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { leftDomain } from '@vmferry/hypervisor/libvirt/dest/left';
import { ImageRecord } from '@vmferry/hypervisor/libvirt/images/record';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import {
  type CommittedHere,
  type EndOfPrepared,
  endPrepared,
  lookAtPrepared,
} from '@vmferry/hypervisor/qemu/mark';
import type { SimulationHost } from '@vmferry/memsim/guest/host';
import { startGuest } from './start-guest.ts';

export type DestGuestFactory = (uri: string) => Promise<DestGuest>;

type Allowed = Pick<DestAgentOptions, 'allowGuests' | 'guests' | 'libvirt' | 'stateDir'>;

/**
 * `simulation` has the simulated guests that may come in.
 *
 * @throws GuestError E_REFUSED, E_UNSUPPORTED, or why the hypervisor cannot be reached
 */
export function destGuests(options: Allowed, simulation: SimulationHost): DestGuestFactory {
  return async (uri) => {
    const { allowGuests } = options;
    if (allowGuests && !allowGuests.some((glob) => glob === uri || matchesGlob(uri, glob))) {
      throw new GuestError(
        'E_REFUSED',
        `the destination agent does not take ${uri} in`,
        "add it to allowGuests in the destination agent's configuration, or name a guest that is there",
      );
    }
    return await openGuest<DestGuest>(uri, {
      libvirt: (name) =>
        LibvirtDestGuest.connect(
          name,
          libvirtOptions(options.libvirt),
          libvirtPolicy(options.libvirt),
          (session) => imagesOf(options, session),
        ),
      qemu: (name) => openQemu(name, options),
      sim: (name) => simulation.dest(name),
    });
  };
}

/**
 * Ends what a session of an agent before this one prepared and never ran. Simulated guests ended with their agent.
 */
export async function endPreparedGuest(
  uri: string,
  session: string,
  options: Allowed,
): Promise<EndOfPrepared> {
  const { guests, libvirt } = options;
  return await openGuest<EndOfPrepared>(uri, {
    libvirt: (name) => leftDomain(name, libvirtOptions(libvirt), imagesOf(options, session)),
    qemu: (name) => endPrepared(guests?.[name]?.qmp ?? name, session),
    sim: () => Promise.resolve({ found: 'gone' }),
  });
}

/** Where a guest stands that was committed to a session of an agent before this one. */
export async function lookAtCommittedGuest(
  uri: string,
  session: string,
  { guests, libvirt }: Allowed,
): Promise<CommittedHere> {
  return await openGuest<CommittedHere>(uri, {
    libvirt: async (name) => {
      const left = await leftDomain(name, libvirtOptions(libvirt));
      return left.found === 'kept'
        ? { found: 'here', status: 'paused', migration: 'unknown' }
        : { found: 'gone' };
    },
    qemu: (name) => lookAtPrepared(guests?.[name]?.qmp ?? name, session),
    sim: () => Promise.resolve({ found: 'gone' }),
  });
}

/** Beside the session's journal, which says whether they may be removed. */
function imagesOf({ stateDir }: Allowed, session: string): ImageRecord {
  return new ImageRecord(journalPath(stateDir, `${session}-dest`).replace(/journal$/, 'images'));
}

/** `name`: of a guest from the configuration, or a QMP socket. */
async function openQemu(name: string, { guests }: Allowed): Promise<DestGuest> {
  const file = guests?.[name];
  if (!file) return await QemuDestGuest.connect(name);
  return file.command
    ? await startGuest(name, file.qmp, file.command)
    : await QemuDestGuest.connect(file.qmp);
}
