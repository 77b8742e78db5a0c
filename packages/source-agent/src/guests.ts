/** From a guest's URI to its driver. */
import { GuestError } from '@vmferry/engine/errors';
import type { SourceGuest } from '@vmferry/engine/guest';
import { QemuSourceGuest } from '@vmferry/hypervisor/qemu/source-guest';

export type SourceGuestFactory = (uri: string) => Promise<SourceGuest>;

/** @throws GuestError E_UNSUPPORTED, or why the hypervisor cannot be reached */
export const sourceGuests: SourceGuestFactory = async (uri) => {
  const colon = uri.indexOf(':');
  const kind = uri.slice(0, colon);
  if (kind === 'qemu') return await QemuSourceGuest.connect(uri.slice(colon + 1));
  throw new GuestError(
    'E_UNSUPPORTED',
    `guests of the kind "${kind}" are not supported yet`,
    'name a qemu: guest',
  );
};
