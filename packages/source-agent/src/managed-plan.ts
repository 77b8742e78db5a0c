import type { ManagedPlan } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';

/** The destination's own name for the domain is what its URI says before any query. */
export function managedPlan(request: MigrateRequest): ManagedPlan {
  const { guest, destGuest, undefineSource = false, destXml, copyStorage = 'none', destroySource } = request;
  const nameOf = (uri: string): string => uri.slice(uri.indexOf(':') + 1).replace(/\?connect=.*$/, '');
  const destName = destGuest === undefined ? undefined : nameOf(destGuest);
  return {
    undefineSource,
    copyStorage,
    keepSource: !destroySource,
    ...(destName === undefined || destName === nameOf(guest) ? {} : { destName }),
    ...(destXml === undefined ? {} : { destXml }),
  };
}
