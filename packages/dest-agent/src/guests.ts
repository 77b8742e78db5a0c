/** Which guests a peer may bring in, and how the agent gets hold of the hypervisor that takes them. */
import { matchesGlob } from 'node:path';
import type { DestAgentOptions } from '@vmferry/agent-core/config';
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import { startGuest } from './start-guest.ts';

export type DestGuestFactory = (uri: string) => Promise<DestGuest>;

/** @throws GuestError E_REFUSED, E_UNSUPPORTED, or why the hypervisor cannot be reached */
export function destGuests(options: Pick<DestAgentOptions, 'allowGuests' | 'guests'>): DestGuestFactory {
  return async (uri) => {
    const { allowGuests } = options;
    if (allowGuests && !allowGuests.some((glob) => glob === uri || matchesGlob(uri, glob))) {
      throw new GuestError(
        'E_REFUSED',
        `the destination agent does not take ${uri} in`,
        "add it to allowGuests in the destination agent's configuration, or name a guest that is there",
      );
    }
    const [kind, name] = split(uri);
    if (kind !== 'qemu') {
      throw new GuestError(
        'E_UNSUPPORTED',
        `guests of the kind "${kind}" are not supported yet`,
        'name a qemu: guest',
      );
    }
    const file = options.guests?.[name];
    if (!file) return await QemuDestGuest.connect(name);
    return file.command
      ? await startGuest(name, file.qmp, file.command)
      : await QemuDestGuest.connect(file.qmp);
  };
}

function split(uri: string): [kind: string, name: string] {
  const colon = uri.indexOf(':');
  return [uri.slice(0, colon), uri.slice(colon + 1)];
}
