import { addon } from './addon.ts';
import { NativeError } from './errors.ts';

export type Feature = 'lz4' | 'xxhash' | 'libvirt';

const libraries: Readonly<Record<Feature, { library: string; package: string }>> = {
  lz4: { library: 'liblz4', package: 'liblz4-dev' },
  xxhash: { library: 'libxxhash', package: 'libxxhash-dev' },
  libvirt: { library: 'libvirt', package: 'libvirt-dev' },
};

/** What the addon was built with. Reading throws `E_NATIVE_MISSING` if the addon itself is not built. */
export const features: Readonly<Record<Feature, boolean>> = {
  get lz4() {
    return addon().features.lz4;
  },
  get xxhash() {
    return addon().features.xxhash;
  },
  get libvirt() {
    return addon().features.libvirt;
  },
};

/** Throws `E_NATIVE_MISSING` with the way out if the addon was built without it. */
export function requireFeature(feature: Feature): void {
  if (features[feature]) return;
  const { library, package: debianPackage } = libraries[feature];
  throw new NativeError('E_NATIVE_MISSING', `built without ${library}: install ${debianPackage} and rebuild`);
}
