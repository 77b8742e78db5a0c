/**
 * Volumes that libvirt creates for disks that are copied. It leaves them when the migration is given up. Only what was
 * made since is removed: a pool may not have told of a file that was there before.
 */
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import type { LibvirtHost } from '@vmferry/native/libvirt/host';

export interface VolumeName {
  readonly pool: string;
  readonly volume: string;
}

export class NewVolumes {
  readonly #names: readonly VolumeName[];
  readonly #bornMs: (path: string) => Promise<number | undefined>;
  readonly #sinceMs = Date.now();

  /**
   * @param names of volumes that are not there yet
   * @param bornMs when the file at a path was made, by the host's clock; undefined where that cannot be told
   */
  constructor(names: readonly VolumeName[], bornMs: (path: string) => Promise<number | undefined>) {
    this.#names = names;
    this.#bornMs = bornMs;
  }

  /** @throws LibvirtError when libvirt does not remove one */
  async remove(host: Pick<LibvirtHost, 'volume' | 'removeVolume'>): Promise<void> {
    for (const { pool, volume } of this.#names) {
      const found = await ifKnown(() => host.volume(pool, volume));
      if (found === undefined) continue;
      const born = await this.#bornMs(found.path);
      if (born !== undefined && born >= this.#sinceMs) await ifKnown(() => host.removeVolume(pool, volume));
    }
  }
}

async function ifKnown<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (isLibvirtError(error, 'VIR_ERR_NO_STORAGE_VOL', 'VIR_ERR_NO_STORAGE_POOL')) return undefined;
    throw error;
  }
}
