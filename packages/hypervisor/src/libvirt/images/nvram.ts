/**
 * The firmware's variables (UEFI), for which libvirt makes a file as soon as a domain comes in, and leaves it when the
 * migration is given up. Only what was made since is removed.
 */
import { lstat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { confine, type NamedDirectory } from './confine.ts';

/** Where libvirt makes them unless a domain's XML has another place. */
const LIBVIRTS_OWN = '/var/lib/libvirt/qemu/nvram';

export interface NewNvramOptions {
  /** Where the host's own `/` is for this agent. */
  readonly root: string;
  /** It may lie in these as well. */
  readonly directories: readonly NamedDirectory[];
}

export class NewNvram {
  readonly #path: string | undefined;
  readonly #options: NewNvramOptions;
  readonly #sinceMs = Date.now();

  /** @param path of a file that is not there yet; undefined for none */
  constructor(path: string | undefined, options: NewNvramOptions) {
    this.#path = path;
    this.#options = options;
  }

  /** What lies elsewhere, or cannot be removed, stays: the next migration writes over it. */
  async remove(): Promise<void> {
    if (this.#path === undefined) return;
    const file = await this.#file(this.#path);
    if (file === undefined) return;
    try {
      const found = await lstat(file);
      if (found.isFile() && found.birthtimeMs >= this.#sinceMs) await unlink(file);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
    }
  }

  /** As this agent sees it; undefined where it is none of its business. */
  async #file(path: string): Promise<string | undefined> {
    const { root, directories } = this.#options;
    // By its name alone: another process's root (`/proc/PID/root`) is a link that resolves to this one's.
    if (dirname(path) === LIBVIRTS_OWN && resolve(path) === path) return join(root, path);
    const place = await confine(path, directories);
    return place.ok ? join(place.directory, place.name) : undefined;
  }
}
