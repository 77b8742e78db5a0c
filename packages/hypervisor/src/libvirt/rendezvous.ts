/**
 * The directory in which the two hypervisors of a migration believe to meet. libvirt names the RAM's socket, and the
 * disks', by one path for both hosts: on the source the agent listens there, on the destination QEMU does.
 *
 *     SOCKET-DIR/              passable, not listable
 *         NAME/                of this migration, 96 random bits; writable for QEMU's user
 *             rpc ram nbd
 */
import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { SideKind } from '@vmferry/engine/guest';
import type { LibvirtOptions } from './options.ts';

export class Rendezvous {
  readonly #there: string;
  readonly #here: string;

  /** Makes the directory. Rejects where one of that name is there already. */
  static async make(
    options: Pick<LibvirtOptions, 'socketDir' | 'socketDirHere'>,
    name: string,
  ): Promise<Rendezvous> {
    await mkdir(options.socketDirHere, { recursive: true, mode: 0o711 });
    const here = join(options.socketDirHere, name);
    await mkdir(here);
    // QEMU may run as another user than the agent and must still reach what is in it.
    await chmod(here, 0o733);
    return new Rendezvous(join(options.socketDir, name), here);
  }

  private constructor(there: string, here: string) {
    this.#there = there;
    this.#here = here;
  }

  /** As the agent sees it. */
  here(kind: SideKind): string {
    return join(this.#here, kind);
  }

  /** As libvirtd and QEMU see it. */
  there(kind: SideKind): string {
    return join(this.#there, kind);
  }

  /** With all that is in it. Any number of times. */
  async remove(): Promise<void> {
    await rm(this.#here, { recursive: true, force: true });
  }
}
