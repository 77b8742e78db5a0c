/** What an agent sees of its host by itself: files, interfaces, the kernel's settings. Reads only. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { deviceBytes, deviceIdentity } from './block-device.ts';
import type { HostFacts, Place } from './host-facts.ts';
import { hostListening } from './host-listening.ts';

/** `/dev/userfaultfd` in place of the system call. */
const OPENS_DEVICE_SINCE = 8_000_000;

interface Qemu {
  /** Undefined where libvirt does not tell. */
  readonly qemuUser: { readonly uid: number; readonly gid: number } | undefined;
  readonly hypervisor: number;
}

export class HostView {
  readonly #root: string;

  /**
   * @param root where the host's own `/` is for this agent: elsewhere where it runs in a container, or in other
   *   namespaces than libvirtd
   */
  constructor(root = '/') {
    this.#root = root;
  }

  /** Whether each is a bridge. Open vSwitch's do not tell: where it runs, all may be. Undefined without sysfs. */
  async interfaces(): Promise<ReadonlyMap<string, boolean> | undefined> {
    const names = await readdir(this.#at('/sys/class/net')).catch(absent);
    if (names === undefined) return undefined;
    const openVSwitch = names.includes('ovs-system');
    const isBridge = async (name: string) =>
      openVSwitch || (await stat(this.#at(`/sys/class/net/${name}/bridge`)).catch(absent)) !== undefined;
    return new Map(await Promise.all(names.map(async (name) => [name, await isBridge(name)] as const)));
  }

  /** Where something could listen. */
  listening(): Promise<HostFacts['listening']> {
    return hostListening(this.#root);
  }

  async defaultHugePageBytes(): Promise<number | undefined> {
    const text = await this.#read('/proc/meminfo');
    const kib = Number(/^Hugepagesize:\s*(\d+) kB$/m.exec(text ?? '')?.[1] ?? 0);
    return kib === 0 ? undefined : kib * 1024;
  }

  /** What is at these paths. Nothing is opened. */
  async places(paths: readonly string[]): Promise<ReadonlyMap<string, Place>> {
    return new Map(await Promise.all(paths.map(async (path) => [path, await this.#place(path)] as const)));
  }

  async #place(path: string): Promise<Place> {
    try {
      const found = await stat(this.#at(path));
      const kind = kindOf(found);
      const block = kind === 'block' ? await this.#device(found.rdev) : {};
      return { found: 'something', kind, inode: found.ino, ...block };
    } catch (error) {
      const code = codeOf(error);
      if (code === 'ENOENT' || code === 'ENOTDIR') return { found: 'nothing' };
      return { found: 'unknown', why: code === 'EACCES' ? 'permission denied' : code };
    }
  }

  /** When the file was made; undefined where its file system does not keep that. */
  async bornMs(path: string): Promise<number | undefined> {
    const found = await stat(this.#at(path)).catch(absent);
    return found === undefined || !found.isFile() || found.birthtimeMs <= 0 ? undefined : found.birthtimeMs;
  }

  async #device(rdev: number): Promise<{ readonly device?: string; readonly bytes?: number }> {
    const sysfs = this.#at('/sys');
    const [device, bytes] = await Promise.all([deviceIdentity(rdev, sysfs), deviceBytes(rdev, sysfs)]);
    return { ...(device === undefined ? {} : { device }), ...(bytes === undefined ? {} : { bytes }) };
  }

  async userfaultfd({ qemuUser, hypervisor }: Qemu): Promise<HostFacts['userfaultfd']> {
    const setting = await this.#read('/proc/sys/vm/unprivileged_userfaultfd');
    if (setting === undefined) return { available: false, why: 'the kernel has no userfaultfd' };
    // Where libvirt does not tell whom QEMU runs as, QEMU itself does, when it is asked for post-copy.
    if (setting.trim() === '1' || qemuUser === undefined || qemuUser.uid === 0) return { available: true };
    if (hypervisor >= OPENS_DEVICE_SINCE && (await this.#mayOpen('/dev/userfaultfd', qemuUser))) {
      return { available: true };
    }
    return {
      available: false,
      why: `vm.unprivileged_userfaultfd is ${setting.trim()}, and QEMU runs as the user ${qemuUser.uid}`,
    };
  }

  async #mayOpen(path: string, { uid, gid }: { uid: number; gid: number }): Promise<boolean> {
    const found = await stat(this.#at(path)).catch(absent);
    if (found === undefined) return false;
    const shift = found.uid === uid ? 6 : found.gid === gid ? 3 : 0;
    return ((found.mode >> shift) & 6) === 6;
  }

  async #read(path: string): Promise<string | undefined> {
    return await readFile(this.#at(path), 'utf8').catch(absent);
  }

  #at(path: string): string {
    return join(this.#root, path);
  }
}

function kindOf(found: Awaited<ReturnType<typeof stat>>): Extract<Place, { found: 'something' }>['kind'] {
  if (found.isFile()) return 'file';
  if (found.isBlockDevice()) return 'block';
  if (found.isCharacterDevice()) return 'character';
  if (found.isDirectory()) return 'directory';
  return found.isSocket() ? 'socket' : 'other';
}

function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  throw error;
}

/** For what need not be there, or may not be read. */
function absent(error: unknown): undefined {
  codeOf(error);
  return undefined;
}
