import type { Disk } from '../xml/domain-shape.ts';

/** How disks are moved: not at all (both hosts see them), whole, or what is above their backing images. */
export const copyStorageModes = ['none', 'all', 'inc'] as const;
export type CopyStorage = (typeof copyStorageModes)[number];

export interface PreflightPlan {
  readonly postcopy: boolean;
  readonly copyStorage: CopyStorage;
}

/** Those that libvirt copies. Source: `virDomainMigrateToURI3`, `VIR_MIGRATE_NON_SHARED_DISK`. */
export function isCopied({ source, readonly, shareable }: Disk, { copyStorage }: PreflightPlan): boolean {
  return copyStorage !== 'none' && source.type !== 'none' && !readonly && !shareable;
}
