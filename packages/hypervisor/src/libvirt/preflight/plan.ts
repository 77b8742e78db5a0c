/** How disks are moved: not at all (both hosts see them), whole, or what is above their backing images. */
export const copyStorageModes = ['none', 'all', 'inc'] as const;
export type CopyStorage = (typeof copyStorageModes)[number];

export interface PreflightPlan {
  readonly postcopy: boolean;
}
