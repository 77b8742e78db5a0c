/** From a guest's URI to its driver: each kind of guest registers what opens it. */
import { GuestError } from '@vmferry/engine/errors';

/** By the kind that stands before the colon; the opener gets what stands behind it. */
export type GuestSchemes<Guest> = Readonly<Record<string, (name: string) => Promise<Guest>>>;

/** @throws GuestError E_UNSUPPORTED, or why the hypervisor cannot be reached */
export async function openGuest<Guest>(uri: string, schemes: GuestSchemes<Guest>): Promise<Guest> {
  const colon = uri.indexOf(':');
  const kind = uri.slice(0, Math.max(0, colon));
  const open = Object.hasOwn(schemes, kind) ? schemes[kind] : undefined;
  if (open) return await open(uri.slice(colon + 1));
  const known = Object.keys(schemes).map((scheme) => `${scheme}:`);
  throw new GuestError(
    'E_UNSUPPORTED',
    `guests of the kind "${kind}" are not supported yet`,
    `name a guest of one of these kinds: ${known.join(', ')}`,
  );
}
