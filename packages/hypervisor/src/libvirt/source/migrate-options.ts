/** What libvirt is asked for. */
import type { ManagedPlan, SourcePlan } from '@vmferry/engine/guest';
import type { MigrateOptions } from '@vmferry/native/libvirt/domain';
import type { Rendezvous } from '../rendezvous.ts';

/** Far above any link, MiB/s: the agent's reading is what limits QEMU. */
const UNLIMITED_MIB = 1_000_000;
export const PLAIN: ManagedPlan = { undefineSource: false, copyStorage: 'none', keepSource: false };

/** libvirt knows the domain there by the name that it is told again, and finishes by the flags of this call. */
export function resumeOptions(
  { destName, undefineSource }: ManagedPlan,
  rendezvous: Rendezvous,
  { persistent }: { readonly persistent: boolean },
): MigrateOptions {
  return {
    flags: [
      'live',
      'peer-to-peer',
      'post-copy',
      'post-copy-resume',
      ...definitionFlags({ persistent, undefineSource }),
    ],
    migrateUri: `unix://${rendezvous.there('ram')}`,
    ...(destName === undefined ? {} : { destinationName: destName }),
  };
}

function definitionFlags({ persistent, undefineSource }: { persistent: boolean; undefineSource: boolean }) {
  if (!persistent) return [];
  return undefineSource
    ? (['persist-destination', 'undefine-source'] as const)
    : (['persist-destination'] as const);
}

/** @param copied the disks to copy, by their targets: `disksToCopy` */
export function migrateOptions(
  plan: SourcePlan,
  rendezvous: Rendezvous,
  { persistent, copied }: { readonly persistent: boolean; readonly copied: readonly string[] },
): MigrateOptions {
  const { destName, destXml, undefineSource, copyStorage } = plan.managed ?? PLAIN;
  // libvirt takes an empty list for none, and copies all that are neither read-only nor shareable.
  const copies = copied.length > 0;
  return {
    flags: [
      'live',
      'peer-to-peer',
      // In post-copy libvirt must run the guest itself. Where none is needed in the end the destination's relay says
      // that it is to be left paused.
      plan.postcopy ? 'post-copy' : 'paused',
      ...(plan.throttle ? (['auto-converge'] as const) : []),
      ...definitionFlags({ persistent, undefineSource }),
      ...(copies ? ([copyStorage === 'inc' ? 'non-shared-incremental' : 'non-shared-disk'] as const) : []),
    ],
    migrateUri: `unix://${rendezvous.there('ram')}`,
    bandwidth: UNLIMITED_MIB,
    ...(copies ? { disks: copied, disksUri: `unix://${rendezvous.there('nbd')}` } : {}),
    ...(destName === undefined ? {} : { destinationName: destName }),
    ...(destXml === undefined ? {} : { destinationXml: destXml }),
    // The definition that is kept there has what this host calls things, unless libvirt is told.
    ...(destXml === undefined || !persistent ? {} : { persistentXml: destXml }),
  };
}
