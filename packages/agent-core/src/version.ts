/** Of all packages; the workspace is released as one. */
export const VERSION = '0.1.0';

/**
 * What an agent of this version can do beyond the protocol's own version, on either side. `tunnel-2`: libvirt's connections
 * are carried, and a guest that its source can take back is not run before the commit.
 */
export const FEATURES: readonly string[] = ['lz4', 'express', 'probe', 'tunnel-2'];
